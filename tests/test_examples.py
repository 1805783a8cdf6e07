"""The scripts of examples/ run, and print what they are there to show."""

import re
import runpy

import pytest

from tests.conftest import REPOSITORY

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))


@pytest.fixture
def printed(asset, capsys, monkeypatch):
    """A function that runs an example and returns what it prints."""
    for name in ("llama3", "smollm2-135m"):
        asset(name)

    def run(name):
        monkeypatch.setattr("sys.argv", [name])
        runpy.run_path(str(REPOSITORY / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def numbers(pattern, text):
    return [float(number) for number in re.findall(pattern, text)]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_in_the_readme(path):
    assert len(path.read_text().splitlines()) <= 60
    assert f"examples/{path.name}" in (REPOSITORY / "README.md").read_text()


def test_align_two_tokenizers(printed):
    out = printed("align_two_tokenizers.py")
    assert re.search(r"^  '201' +'2' '0' '1'$", out, re.M)
    assert "'201': '2' 0.9009, '0' 0.0901, '1' 0.0090" in out
    assert "use p_kl: " in out


def test_own_loop(printed):
    out = printed("own_loop.py")
    losses = numbers(r": ([\d.]+) nats", out)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.1 * losses[0]


def test_two_teachers(printed):
    out = printed("two_teachers.py")
    entropies, weights = numbers(r": ([\d.]+) nats a token", out), numbers(r"weight ([\d.]+)", out)
    assert entropies[0] < entropies[1]
    assert weights[0] > weights[1] > 0
    assert sum(weights) == pytest.approx(1, abs=2e-3)
