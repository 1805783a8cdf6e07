"""What README and docs/ show runs, and what they link to is there."""

import functools
import re
from pathlib import Path

import pytest

from xtoken_jax.text import ByteTokenizer

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]
FRAGMENT = "# fragment"  # a block with this comment in it is shown, not run


def python_blocks(page: Path) -> list[tuple[int, str]]:
    """The line before each block of Python, and the block."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M)
    return [(text.count("\n", 0, match.start(1)), match[1]) for match in found]


EXAMPLES = [
    pytest.param(page, line, block, id=f"{page.name}:{line}")
    for page in PAGES
    for line, block in python_blocks(page)
    if FRAGMENT not in block
]


load_once = functools.cache(ByteTokenizer.load)  # the examples share what takes seconds to load


@pytest.mark.parametrize(("page", "line", "block"), EXAMPLES)
def test_examples_run(asset, tmp_path, monkeypatch, page, line, block):
    for name in ("llama3", "smollm2-135m"):
        asset(name)
    monkeypatch.setattr(ByteTokenizer, "load", load_once)
    monkeypatch.chdir(tmp_path)
    # Blank lines in front, so that a traceback shows the line of the page.
    exec(compile("\n" * line + block, str(page), "exec"), {})


def test_the_readme_begins_with_an_example_of_twelve_lines():
    _, block = python_blocks(README)[0]
    assert FRAGMENT not in block
    assert len([line for line in block.splitlines() if line.strip()]) <= 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path = target.partition("#")[0]
        if path and "://" not in target:
            assert (page.parent / path).exists(), target


def test_the_table_is_of_the_quickstart():
    readme = README.read_text(encoding="utf-8")
    for name in ("student before", "teacher smollm2", "student after", "student's change"):
        assert re.search(rf"\| {name} \| \S+ \| \S+ \|", readme), name
