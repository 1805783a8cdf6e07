"""What the HTML pages share: their frame, hostile text made harmless and visible, numbers."""

import base64
import functools
import hashlib
import html
import importlib.resources
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SIGNS = {" ": "·", "\n": "↵", "\t": "→"}
# `str.isprintable` is False for control and format characters, bidi controls and odd spaces among
# them. These it lets through, though fonts draw nothing for them: fillers, selectors, a blank.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
_DOTTED_CIRCLE = "\u25cc"


def page(title: str, body: str, *, styles: Iterable[str], script: str | None = None) -> str:
    """A whole page that needs nothing from the network and runs no script but its own.

    Args:
        title: Plain text.
        body: HTML, escaped.
        styles: Names of this package's CSS files, beside the one that all pages have.
        script: Name of the JavaScript file.
    """
    css = "".join(map(_resource, ("page.css", *styles)))
    code = "" if script is None else _resource(script)
    name = visible(title, space=" ")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(code)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(name)}</title>
<style>
{css}</style>
</head>
<body>
<main>
<h1>{html.escape(name)}</h1>
{body}
</main>
{f"<script>{code}</script>" if code else ""}
</body>
</html>
"""


def _resource(name: str) -> str:
    return importlib.resources.files("xtoken_jax.report").joinpath(name).read_text(encoding="utf-8")


def _policy(code: str) -> str:
    """No network; of all scripts only the one with this content."""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    allowed = f"'sha256-{digest}'" if code else "'none'"
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def data_block(identifier: str, content: Any) -> str:
    """JSON in the page for its script to read; no text in it can end the block."""
    text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{identifier}">{text}</script>'


def visible(text: str, *, space: str = "·") -> str:
    """Plain text with a sign for each white space, `U+NNNN` for what would not be seen.

    A combining mark at the beginning gets a dotted circle to sit on.
    """
    signs = "".join(_sign(character) or character for character in text.replace(" ", space))
    return _seat(text) + signs


def token_html(piece: str) -> str:
    """A token like `visible`, with the signs set apart from characters of the token."""
    return f"<bdi>{_seat(piece)}{''.join(map(_token_character, piece))}</bdi>"


def text_html(text: str) -> str:
    """The text itself; what would not be seen is `<i>U+NNNN</i>` instead."""
    return "".join(map(_text_character, text))


def begins_with_mark(text: str) -> bool:
    """Whether the first character would combine with whatever stands before it."""
    return unicodedata.category(text[0]).startswith("M") if text else False


def _seat(text: str) -> str:
    return _DOTTED_CIRCLE if begins_with_mark(text) and not _sign(text[0]) else ""


def _sign(character: str) -> str | None:
    """What stands for a character that is not seen; None for one that is, or is a space."""
    if character in "\n\t":
        return _SIGNS[character]
    if not character.isprintable() or _BLANK.match(character):
        return f"U+{ord(character):04X}"
    return None


@functools.lru_cache(maxsize=1 << 14)
def _token_character(character: str) -> str:
    sign = _SIGNS.get(character) or _sign(character)
    return html.escape(character) if sign is None else f"<i>{sign}</i>"


@functools.lru_cache(maxsize=1 << 14)
def _text_character(character: str) -> str:
    if character in "\n\t":  # stays in the text; the style sheet draws the sign
        name = "newline" if character == "\n" else "tab"
        return f'<i class="{name}">{character}</i>'
    sign = _sign(character)
    return html.escape(character) if sign is None else f"<i>{sign}</i>"


def facts(values: Mapping[str, str]) -> str:
    """Names and values as a row of tiles."""
    pairs = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in values.items()
    )
    return f'<dl class="facts">{"".join(pairs)}</dl>'


def table(cells: Sequence[Sequence[str]], *, kind: str = "numbers") -> str:
    """Plain texts as a table that scrolls sideways by itself; first row and column are headings.

    Args:
        cells: By rows.
        kind: `numbers`, which stand on the right and are never broken, or `words`.
    """
    heading, *rows = ([html.escape(visible(cell, space=" ")) for cell in row] for row in cells)
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heading)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>'
        for row in rows
    )
    return f"""<div class="scroll {kind}"><table>
<thead><tr>{head}</tr></thead>
<tbody>{body}</tbody>
</table></div>"""


def share(part: float, whole: float) -> str:
    """A percentage that says 0% and 100% only of nothing and of everything."""
    if not whole or not part:
        return "0%"
    if part == whole:
        return "100%"
    ratio = part / whole
    if ratio < 0.0005:
        return "<0.1%"
    return ">99.9%" if ratio >= 0.9995 else f"{ratio:.1%}"
