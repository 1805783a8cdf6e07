"""What README and docs/ show runs, and what they link to is there."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCKS = [
    (page.name, index, block)
    for page in PAGES
    for index, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.S | re.M)
    )
    if "# fragment" not in block
]


@pytest.mark.parametrize(("page", "index", "block"), BLOCKS, ids=lambda x: str(x)[:20])
def test_examples_run(asset, tmp_path, monkeypatch, page, index, block):
    monkeypatch.chdir(tmp_path)
    for name in ("llama3", "smollm2-135m"):
        asset(name)
    exec(compile(block, f"{page}, block {index}", "exec"), {})


def test_the_readme_has_an_example_of_twelve_lines():
    readme = next(block for page, _, block in BLOCKS if page == "README.md")
    assert len([line for line in readme.splitlines() if line.strip()]) <= 12


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_table_is_of_the_quickstart():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name in ("student before", "teacher", "student after", "student's change"):
        assert re.search(rf"\| {name} \| \S+ \| \S+ \|", readme), name
