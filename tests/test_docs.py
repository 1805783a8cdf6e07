"""What README and docs/ show runs, and what they link to is there."""

import ast
import functools
import re
from pathlib import Path

import pytest
import yaml

from xtoken_jax.config import check_config
from xtoken_jax.text import ByteTokenizer

REPOSITORY = Path(__file__).resolve().parent.parent
README = REPOSITORY / "README.md"
PAGES = [README, REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
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
        assert re.search(rf"\| {name} \| \S+ \| \S+ \| (\S+ )?\|", readme), name


CONFIGS = [
    pytest.param(yaml.safe_load(block), id=f"{page.name}:{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    )
]
OF_ANOTHER_PROGRAM = {"task"}  # fields of a task of lm-eval
REST = {
    "run_dir": "runs/mine",
    "student": {"model": "owner/student"},
    "teachers": {},
    "data": {"train": [{"kind": "text", "path": "*.txt"}]},
}


@pytest.mark.parametrize("content", CONFIGS)
def test_configs_are_valid(content):
    if OF_ANOTHER_PROGRAM.isdisjoint(content):
        check_config(REST | content, name="block")


FILLED = "…"  # in a message, what is filled in


@functools.cache
def texts_of_the_package() -> tuple[str, ...]:
    """Each string in the package, without quotes around names of fields."""
    texts = []
    for path in (REPOSITORY / "xtoken_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            if all(isinstance(part, ast.Constant | ast.FormattedValue) for part in parts):
                shown = (getattr(part, "value", "") for part in parts)
                texts.append("".join(x if isinstance(x, str) else FILLED for x in shown))
    return tuple(text.replace("`", "") for text in texts)


MESSAGES = re.findall(
    r"^\| `([^|]*)` \|", (REPOSITORY / "docs/troubleshooting.md").read_text("utf-8"), re.M
)


def test_there_are_messages():
    assert len(MESSAGES) > 20


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_the_packages(message):
    known = [piece.strip(" :") for piece in message.split(FILLED)]
    pattern = re.compile(".*".join(map(re.escape, known)), re.S)
    assert any(pattern.search(text) for text in texts_of_the_package())
