"""Draw the README's picture: one sentence in two tokenisations, its chunks, and a row of W.

Usage: python scripts/draw_overview.py [OUT]   (default docs/overview.svg)
Everything in it is computed: the tokens, the chunks and the weights are the real ones.
"""

import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from xtoken_jax.align import align_bytes, alignment_record
from xtoken_jax.projection import build_projection, projection_record
from xtoken_jax.text import ByteTokenizer

TEXT = "Hundreds paid 201 of 1,150 in 2024."
SHOWN = "201"
# Two shades for chunks of one token each, two for the others: apart for the colour-blind too.
PLAIN = ("#DCE9F5", "#C3D9EE")
UNEQUAL = ("#F6C67A", "#EFB04C")
INK, FAINT = "#1B2733", "#5B6B7B"
MONOSPACE = {"family": "DejaVu Sans Mono", "ha": "center", "va": "center", "color": INK}


def main(out: Path) -> None:
    """Compute and draw."""
    student = ByteTokenizer.load("asset:llama3")
    teacher = ByteTokenizer.load("asset:smollm2-135m")
    encoded = student.encode([TEXT]), teacher.encode([TEXT])
    alignment = align_bytes(*encoded, student, teacher)
    record = alignment_record(alignment, *encoded, student, teacher)
    row = projection_record(
        build_projection(student, teacher), student, teacher, tokens=[SHOWN.encode()]
    )["examples"][0]

    mpl.rcParams |= {"svg.fonttype": "path", "svg.hashsalt": "overview", "font.size": 11}
    figure = Figure(figsize=(10.4, 4.3), facecolor="white")
    draw_sentence(figure.add_axes((0.09, 0.40, 0.90, 0.56)), record)
    draw_row(figure.add_axes((0.09, 0.03, 0.90, 0.30)), row)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None, dpi=150)


def draw_sentence(axes, record) -> None:
    """Tokens above and below at the bytes that they spell, and the chunks between them."""
    axes.set(xlim=(0, len(TEXT)), ylim=(-0.2, 3.6))
    axes.axis("off")
    tops = {"student": 2.2, "teacher": 0.5}
    for name, label in (("student", "Llama-3"), ("teacher", "SmolLM2")):
        axes.text(-0.4, tops[name] + 0.42, f"{name}\n{label}", ha="right", va="center", color=INK)
    starts = {side: offsets(record[side]["pieces"]) for side in tops}
    for index, (a, b, c, d) in enumerate(record["chunks"]):
        unequal = (b - a, d - c) != (1, 1)
        colour = (UNEQUAL if unequal else PLAIN)[index % 2]
        left, right = starts["student"][a], starts["student"][b]
        axes.add_patch(Rectangle((left, 0.9), right - left, 1.7, color=colour, lw=0))
        if unequal:
            axes.text((left + right) / 2, 1.75, f"{b - a} to {d - c}", **MONOSPACE | {"size": 9})
        for side, span in (("student", (a, b)), ("teacher", (c, d))):
            for token in range(*span):
                draw_token(
                    axes, record[side]["pieces"][token], starts[side][token], tops[side], colour
                )
    axes.text(0, 3.35, "chunks: runs of tokens that spell the same bytes", color=FAINT, va="center")
    axes.text(len(TEXT), 3.35, "orange: not one token to one", color=FAINT, va="center", ha="right")


def offsets(pieces) -> list[int]:
    """Characters before each piece, and after the last; the text is ASCII."""
    starts = [0]
    for piece in pieces:
        starts.append(starts[-1] + len(piece))
    return starts


def draw_token(axes, piece, left, bottom, colour) -> None:
    """One token as a box; its space shows as an open box."""
    box = FancyBboxPatch(
        (left + 0.06, bottom),
        len(piece) - 0.12,
        0.84,
        boxstyle="round,pad=0,rounding_size=0.15",
        facecolor=colour,
        edgecolor=INK,
        linewidth=0.9,
    )
    axes.add_patch(box)
    label = piece.replace(" ", "\u2423")
    axes.text(left + len(piece) / 2, bottom + 0.4, label, **MONOSPACE | {"size": 11})


def draw_row(axes, row) -> None:
    """The weights of one row of W, as bars."""
    axes.set(xlim=(0, len(TEXT)), ylim=(-0.2, 3.9))
    axes.axis("off")
    axes.text(
        0,
        3.5,
        f"the row of W for the student's token {row['token']}: 0.9 · 0.1^i over its pieces, "
        "made to sum to 1",
        color=FAINT,
        va="center",
    )
    for index, (piece, weight) in enumerate(zip(row["pieces"], row["weights"], strict=True)):
        bottom = 2.1 - index
        axes.text(0.5, bottom + 0.36, piece, **MONOSPACE)
        axes.add_patch(Rectangle((1.2, bottom), 22 * weight, 0.72, color=UNEQUAL[1], lw=0))
        axes.text(1.5 + 22 * weight, bottom + 0.36, f"{weight:.4f}", va="center", color=INK)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/overview.svg"))
