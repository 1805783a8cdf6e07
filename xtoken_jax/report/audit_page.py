"""The page of an audit: which loss fits a pair of tokenizers, and why."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from xtoken_jax.report.page import facts, page, share, token_html, visible

LOSS_NAMES = {"p_kl": "P-KL", "h_kl": "H-KL"}

# How the tokens of a category are reached, nearest first.
REACHED = {
    "exact": "exact match",
    "hybrid": "added by H-KL",
    "projected": "only through W",
    "empty": "not at all",
}

_SMALLEST_SHADED_WEIGHT = 1e-4
_PALE, _DEEP = (0xF2, 0xF8, 0xFC), (0x00, 0x48, 0x74)


def audit_page(record: dict[str, Any], rows: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """A self-contained HTML page: the recommendation, numbers, categories, rows of W.

    Args:
        record: Of the audit.
        rows: Rows of W to draw: student `token`, teacher `pieces` and their `weights`.
        title: Plain text.
    """
    parts = [
        _recommendation(record["recommendation"]),
        facts(headline_numbers(record)),
        f"<section>\n<h2>How the student's tokens reach the teacher</h2>\n"
        f"{categories(record['categories'])}\n</section>",
        _histogram(record["piece_lengths"]),
    ]
    if rows:
        parts.append(_heat_map(rows))
    return page(title, "\n".join(parts), styles=["audit.css"])


def headline_numbers(record: Mapping[str, Any]) -> dict[str, str]:
    """The numbers of an audit that concern the vocabularies as a whole, by what they are."""
    return {
        "overlap, by bytes": f"{record['overlap']['bytes']:.2%}",
        "overlap, by strings": f"{record['overlap']['strings']:.2%}",
        "common share": f"{record['common_share']:.2%}",
        "unreachable teacher tokens": f"{record['unreachable_teacher_tokens']:,}",
        "empty rows": f"{record['empty_rows']:,}",
    }


def counts_of(category: Mapping[str, float]) -> dict[str, float]:
    """How many tokens of a category are reached in each way; together they are its total."""
    counts = {name: category[name] for name in ("exact", "hybrid", "projected")}
    # Rounded, since what fractions of a corpus leave of their sum need not be exactly 0.
    return counts | {"empty": max(0, round(category["total"] - sum(counts.values()), 12))}


def _recommendation(recommendation: Mapping[str, str]) -> str:
    loss = LOSS_NAMES.get(recommendation["loss"], recommendation["loss"])
    return (
        f'<section class="recommendation"><h2>Use {html.escape(loss)}</h2>'
        f"<p>{html.escape(visible(recommendation['reason'], space=' '))}</p></section>"
    )


def categories(record: Mapping[str, Mapping[str, Any]]) -> str:
    """A bar for each category of an audit's `categories`, with its numbers, below a key."""
    keys = "".join(
        f'<li><span class="key {name}"></span>{meaning}</li>' for name, meaning in REACHED.items()
    )
    items = "".join(
        _category(name, category) for name, category in record.items() if category["total"]
    )
    return f'<ul class="keys">{keys}</ul>\n<ul class="bars">{items}</ul>'


def _category(name: str, category: Mapping[str, Any]) -> str:
    label = html.escape(name.replace("_", " "))
    content = f"<h3>{label} <small>{category['total']:,} tokens</small></h3>"
    counts = counts_of(category)
    texts = (
        f"{REACHED[how]} {count:,} ({share(count, category['total'])})"
        for how, count in counts.items()
        if count
    )
    content += _bar(counts) + f"<p>{' · '.join(texts)}</p>"
    weighted = category.get("weighted")
    if weighted and weighted["total"]:
        shares = counts_of(weighted)
        texts = (
            f"{REACHED[how]} {share(part, weighted['total'])}"
            for how, part in shares.items()
            if part > 0
        )
        label = f"by frequency, {share(weighted['total'], 1)} of the corpus: "
        content += _bar(shares) + f"<p>{label}{' · '.join(texts)}</p>"
    return f"<li>{content}</li>"


def _bar(counts: Mapping[str, float]) -> str:
    """Parts as long as their numbers; the text beside says the same."""
    total = sum(counts.values())
    parts = "".join(
        # Grow factors of which the sum is below 1 would not fill the bar.
        f'<span class="{name}" style="flex-grow:{100 * count / total:.4g}"></span>'
        for name, count in counts.items()
        if count > 0
    )
    return f'<div class="bar" aria-hidden="true">{parts}</div>'


def _histogram(piece_lengths: Mapping[str, Mapping[str, int]]) -> str:
    most = max((count for counts in piece_lengths.values() for count in counts.values()), default=0)
    lengths = next(iter(piece_lengths.values()), {})
    body = "".join(
        f'<tr><th scope="row">{html.escape(length)}</th>'
        + "".join(_length_cell(counts[length], most) for counts in piece_lengths.values())
        + "</tr>"
        for length in lengths
    )
    names = {"all": "all tokens", "utf8": "valid UTF-8"}
    heads = "".join(
        f'<th scope="col">{html.escape(names.get(name, name))}</th>' for name in piece_lengths
    )
    return f"""<section>
<h2>Pieces of the tokens outside the exact common set</h2>
<table class="lengths">
<thead><tr><th scope="col">pieces</th>{heads}</tr></thead>
<tbody>{body}</tbody>
</table>
</section>"""


def _length_cell(count: int, most: int) -> str:
    width = 100 * count / most if most else 0
    return f'<td><span style="width:{width:.2f}%"></span>{count:,}</td>'


def _heat_map(rows: Sequence[Mapping[str, Any]]) -> str:
    pieces = list(dict.fromkeys(piece for row in rows for piece in row["pieces"]))
    heads = "".join(f'<th scope="col">{token_html(piece)}</th>' for piece in pieces)
    body = "\n".join(
        f'<tr><th scope="row">{token_html(row["token"])}</th>{_shaded_cells(row, pieces)}</tr>'
        for row in rows
    )
    scale = "".join(_shaded_cell(10.0**-exponent, str(10.0**-exponent)) for exponent in range(4))
    return f"""<section>
<h2>Rows of W</h2>
<p>Student tokens down, teacher pieces across; the shade is the logarithm of the weight.</p>
<table class="heat scale"><tr>{scale}</tr></table>
<div class="wide" tabindex="0" role="region" aria-label="Rows of W">
<table class="heat">
<thead><tr><td></td>{heads}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>
</section>"""


def _shaded_cells(row: Mapping[str, Any], pieces: Sequence[str]) -> str:
    weights: dict[str, float] = {}
    for piece, weight in zip(row["pieces"], row["weights"], strict=True):
        weights[piece] = weights.get(piece, 0.0) + weight
    return "".join(
        _shaded_cell(weights[piece], f"{weights[piece]:.4f}") if piece in weights else "<td></td>"
        for piece in pieces
    )


def _shaded_cell(weight: float, text: str) -> str:
    background, ink = shade(weight)
    return f'<td style="background:{background};color:{ink}">{text}</td>'


def shade(weight: float) -> tuple[str, str]:
    """Colours of a weight and of text on it, from pale at 1e-4 and below to deep blue at 1."""
    depth = 1 - math.log10(max(weight, _SMALLEST_SHADED_WEIGHT)) / math.log10(
        _SMALLEST_SHADED_WEIGHT
    )
    channels = (
        round(pale + depth * (deep - pale)) for pale, deep in zip(_PALE, _DEEP, strict=True)
    )
    return "#{:02x}{:02x}{:02x}".format(*channels), "#ffffff" if depth > 0.71 else "#000000"
