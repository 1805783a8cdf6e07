"""Which spelling a tokenizer uses, read off its `tokenizer.json`."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from xtoken_jax.errors import XTokenError
from xtoken_jax.text.engines import Engines
from xtoken_jax.text.pieces import SPACE_PIECE, PieceCodec
from xtoken_jax.text.wordpiece import WordPieceCodec

_WORD_CUTTERS = ("'BertPreTokenizer'", "'Whitespace'", "'WhitespaceSplit'")


class Codec(Protocol):
    """Bytes of pieces, and pieces of bytes; see `PieceCodec` for what each part means."""

    @property
    def prefix_space(self) -> bool:
        """Whether a text may get a space put before it."""
        ...

    @property
    def prefix_always(self) -> bool:
        """Whether so does a text that begins with a space."""
        ...

    def is_space(self, character: str) -> bool:
        """Whether the tokenizer takes this character for a space."""
        ...

    def to_bytes(self, piece: str) -> bytes:
        """The bytes of a vocabulary entry."""
        ...

    def encode_isolated(self, contents: Sequence[bytes]) -> list[list[int]]:
        """Ids of byte strings as texts of their own; they may spell other bytes."""
        ...

    def encode_raw(self, content: bytes) -> list[int]:
        """Ids from the model alone; they may spell other bytes."""
        ...


def codec_of(serialised: Mapping[str, Any], engines: Engines) -> Codec:
    """The codec for a parsed `tokenizer.json`.

    Raises:
        XTokenError: its spelling does not tell the bytes.
    """
    model = serialised["model"]
    kind = model["type"]
    steps = " ".join(str(serialised.get(part)) for part in ("pre_tokenizer", "decoder"))
    if kind == "WordPiece" and any(cutter in steps for cutter in _WORD_CUTTERS):
        longest = max(map(len, model["vocab"]))
        return WordPieceCodec(engines, model["continuing_subword_prefix"], longest)
    byte_level = kind == "BPE" and "'ByteLevel'" in steps
    spaces = SPACE_PIECE in steps + str(serialised.get("normalizer")) or "Metaspace" in steps
    if not byte_level and not (spaces and kind in ("BPE", "Unigram")):
        raise XTokenError(
            "tokenizer must be byte-level BPE, BPE or Unigram with SentencePiece spaces, or "
            f"WordPiece, got model {kind} with pre-tokenizer {serialised.get('pre_tokenizer')}"
        )
    for mark in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(mark):
            raise XTokenError(f"tokenizer must spell bytes alone, got `{mark}` {model[mark]!r}")
    return PieceCodec.probed(
        engines, byte_level=byte_level, byte_fallback=bool(model.get("byte_fallback"))
    )


def unknown_piece(model: Mapping[str, Any]) -> str | None:
    """What a model of a parsed `tokenizer.json` emits for text that it cannot spell."""
    if (index := model.get("unk_id")) is not None:  # Unigram
        return model["vocab"][index][0]
    return model.get("unk_token")
