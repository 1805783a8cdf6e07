"""Draw the README's picture: one sentence in two tokenisations, its chunks, and a row of W.

Usage: python scripts/draw_overview.py [OUT]   (default docs/overview.svg; .png for a look)
The tokens, the chunks and the weights are the real ones, computed here. The same versions of
matplotlib and of this package give the same bytes.
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Polygon, Rectangle

from xtoken_jax.align import align, alignment_record
from xtoken_jax.projection import build_projection, projection_record
from xtoken_jax.text import ByteTokenizer

TEXT = "Hundreds heard Opus 201 in Lithuanian."
SHOWN = "201"
# Blue against orange stays apart for the colour-blind; a gap parts neighbours of one colour.
PLAIN, UNEQUAL = "#C3D9EE", "#F6C983"
INK, FAINT, LINE = "#1B2733", "#52606D", "#D0D7DE"

# Everything is placed in CSS pixels from the top left.
WIDTH, HEIGHT = 900, 372
LEFT, CHARACTER = 106, 20.3
TOKEN_HEIGHT = 38
TOPS = {"student": 52, "teacher": 138}
ROW_TOP, BAR_LEFT, BAR_WIDTH, BAR_HEIGHT, BAR_STEP = 262, 300, 400, 22, 31
MONOSPACE = {"family": "DejaVu Sans Mono", "ha": "center", "va": "center_baseline", "color": INK}


def main(out: Path) -> None:
    """Compute and draw."""
    student = ByteTokenizer.load("asset:llama3")
    teacher = ByteTokenizer.load("asset:smollm2-135m")
    encoded = student.encode([TEXT]), teacher.encode([TEXT])
    alignment = align(*encoded, student, teacher)
    record = alignment_record(alignment, *encoded, student, teacher)
    row = projection_record(
        build_projection(student, teacher), student, teacher, tokens=[SHOWN.encode()]
    )["examples"][0]

    mpl.rcParams |= {"svg.fonttype": "path", "svg.hashsalt": "overview", "font.size": 10.5}
    figure = Figure(figsize=(WIDTH / 96, HEIGHT / 96), facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axes.axis("off")
    # A card of its own, to be read on a dark page too.
    box(axes, 1, 1, WIDTH - 2, HEIGHT - 2, "white", edge=LINE, radius=8)
    draw_sentence(axes, record)
    axes.plot([24, WIDTH - 24], [210, 210], color=LINE, lw=0.8)
    draw_row(axes, row)
    figure.savefig(out, metadata={"Date": None} if out.suffix == ".svg" else None, dpi=192)


def draw_sentence(axes: Axes, record: dict[str, Any]) -> None:
    """Both rows of tokens, each at the characters that it spells, and the chunks between."""
    caption(axes, LEFT, 28, "Chunks: the shortest runs of tokens that spell the same bytes")
    legend(axes)
    for side, name in (("student", "Llama-3"), ("teacher", "SmolLM2")):
        middle = TOPS[side] + TOKEN_HEIGHT / 2
        style = {"ha": "right", "va": "center_baseline"}
        axes.text(LEFT - 14, middle - 8, side, color=INK, **style)
        axes.text(LEFT - 14, middle + 9, name, color=FAINT, size=9.5, **style)
    starts = {side: offsets(record[side]["pieces"]) for side in TOPS}
    for a, b, c, d in record["chunks"]:
        unequal = (b - a, d - c) != (1, 1)
        colour = UNEQUAL if unequal else PLAIN
        left, right = starts["student"][a], starts["student"][b]
        top, bottom = TOPS["student"] + TOKEN_HEIGHT, TOPS["teacher"]
        axes.add_patch(
            Rectangle((left + 1, top), right - left - 2, bottom - top, color=colour, lw=0)
        )
        if unequal:
            middle = (left + right) / 2, (top + bottom) / 2
            axes.text(*middle, f"{b - a} to {d - c}", **MONOSPACE | {"size": 9})
        for side, span in (("student", range(a, b)), ("teacher", range(c, d))):
            for token in span:
                place = starts[side][token], TOPS[side]
                draw_token(axes, *place, record[side]["pieces"][token], colour)


def legend(axes: Axes) -> None:
    """What the two colours say."""
    for left, colour, label in ((640, PLAIN, "one token to one"), (810, UNEQUAL, "n to m")):
        axes.add_patch(Rectangle((left, 21), 14, 14, color=colour, lw=0))
        caption(axes, left + 20, 28, label)


def caption(axes: Axes, left: float, middle: float, label: str) -> None:
    """A line of explanation."""
    axes.text(left, middle, label, color=FAINT, va="center_baseline")


def offsets(pieces: list[str]) -> list[float]:
    """Where each piece begins, and where the last ends; the text is ASCII."""
    starts = [float(LEFT)]
    for piece in pieces:
        starts.append(starts[-1] + CHARACTER * len(piece))
    return starts


def draw_token(axes: Axes, left: float, top: float, piece: str, colour: str) -> None:
    """One token as a box; its space shows as an open box."""
    width = CHARACTER * len(piece)
    box(axes, left + 1, top, width - 2, TOKEN_HEIGHT, colour, edge=INK, radius=4)
    label = piece.replace(" ", "\u2423")
    axes.text(left + width / 2, top + TOKEN_HEIGHT / 2, label, **MONOSPACE | {"size": 11})


def draw_row(axes: Axes, row: dict[str, Any]) -> None:
    """The student's token, its pieces, and the weight of each as a bar."""
    caption(
        axes,
        LEFT,
        236,
        f"The row of W for the student's token {row['token']}: "
        r"piece $i$ weighs 0.9 · 0.1$^i$, scaled to a sum of 1",
    )
    height = BAR_STEP * (len(row["pieces"]) - 1) + BAR_HEIGHT
    token_width, piece_left = CHARACTER * len(row["token"]), BAR_LEFT - 46
    token_top = ROW_TOP + (height - TOKEN_HEIGHT) / 2
    draw_token(axes, LEFT, token_top, row["token"], UNEQUAL)
    for index, (piece, weight) in enumerate(zip(row["pieces"], row["weights"], strict=True)):
        top = ROW_TOP + BAR_STEP * index
        middle = top + BAR_HEIGHT / 2
        fan = [
            (LEFT + token_width + 1, token_top + TOKEN_HEIGHT / 2),
            (piece_left - 3, middle),
        ]
        axes.add_patch(Polygon(fan, closed=False, fill=False, edgecolor=FAINT, lw=0.9))
        box(axes, piece_left, top, 28, BAR_HEIGHT, UNEQUAL, edge=INK, radius=4)
        axes.text(piece_left + 14, middle, piece, **MONOSPACE)
        bar = Rectangle((BAR_LEFT, top), BAR_WIDTH * weight, BAR_HEIGHT, color=UNEQUAL, lw=0)
        axes.add_patch(bar)
        axes.text(
            BAR_LEFT + BAR_WIDTH * weight + 10,
            middle,
            f"{weight:.4f}",
            **MONOSPACE | {"ha": "left"},
        )


def box(
    axes: Axes,
    left: float,
    top: float,
    width: float,
    height: float,
    colour: str,
    *,
    edge: str,
    radius: float,
) -> None:
    """A rectangle with round corners."""
    axes.add_patch(
        FancyBboxPatch(
            (left, top),
            width,
            height,
            boxstyle=f"round,pad=0,rounding_size={radius}",
            facecolor=colour,
            edgecolor=edge,
            linewidth=0.8,
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/overview.svg"))
