"""From a vocabulary's spelling of a token to its bytes, and back."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from xtoken_jax.errors import XTokenError

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE_PIECE = "\u2581"


def byte_alphabet() -> str:
    """The 256 characters that byte-level BPE writes for bytes 0..255, in order.

    Printable Latin-1 characters stand for themselves; the other bytes, in order, take the code
    points from 256 on. Source: the GPT-2 tokenizer.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return "".join(chr(byte) if byte in printable else chr(next(others)) for byte in range(256))


def unknown_piece(model: Mapping[str, Any]) -> str | None:
    """What a model of a parsed `tokenizer.json` emits for text that it cannot spell."""
    if (index := model.get("unk_id")) is not None:  # Unigram
        return model["vocab"][index][0]
    return model.get("unk_token")


_ALPHABET = byte_alphabet()
_TO_LATIN1 = {ord(character): byte for byte, character in enumerate(_ALPHABET)}


@dataclass(frozen=True)
class PieceCodec:
    """How one tokenizer writes bytes in its vocabulary.

    Attributes:
        tokenizer: The tokenizer itself.
        byte_level: The GPT-2 byte alphabet; otherwise SentencePiece spelling.
        byte_fallback: `<0xNN>` pieces stand for single bytes.
        prefix_space: A text that begins with a letter gets a space put before it.
        prefix_always: So does a text that already begins with a space.
    """

    tokenizer: Tokenizer
    byte_level: bool
    byte_fallback: bool
    prefix_space: bool = False
    prefix_always: bool = False

    @classmethod
    def of(cls, serialised: Mapping[str, Any], tokenizer: Tokenizer) -> "PieceCodec":
        """Read the spelling off a parsed `tokenizer.json`.

        Raises:
            XTokenError: the model is neither byte-level BPE nor SentencePiece BPE or Unigram.
        """
        model = serialised["model"]
        kind = model["type"]
        steps = " ".join(str(serialised.get(part)) for part in ("pre_tokenizer", "decoder"))
        byte_level = kind == "BPE" and "'ByteLevel'" in steps
        spaces = _SPACE_PIECE in steps + str(serialised.get("normalizer")) or "Metaspace" in steps
        if not byte_level and not (spaces and kind in ("BPE", "Unigram")):
            raise XTokenError(
                "tokenizer must be byte-level BPE, or BPE or Unigram with SentencePiece spaces, "
                f"got model {kind} with pre-tokenizer {serialised.get('pre_tokenizer')}"
            )
        for mark in ("continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(mark):
                raise XTokenError(f"tokenizer must spell bytes alone, got `{mark}` {model[mark]!r}")
        codec = cls(tokenizer, byte_level, bool(model.get("byte_fallback")))
        first, second = (codec._encoded_bytes(text) for text in ("a", " a"))
        prefix = first.startswith(b" ")
        return cls(tokenizer, byte_level, codec.byte_fallback, prefix, second.startswith(b"  "))

    def _encoded_bytes(self, text: str) -> bytes:
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        return b"".join(map(self.to_bytes, encoding.tokens))

    def adds_space(self, text: str) -> bool:
        """Whether encoding this text begins with a space that the text does not have."""
        return self.prefix_space and (self.prefix_always or not text.startswith(" "))

    def to_bytes(self, piece: str) -> bytes:
        """The bytes of an ordinary (not an added) vocabulary entry."""
        if self.byte_level:
            try:
                return bytes(map(_TO_LATIN1.__getitem__, map(ord, piece)))
            except KeyError:  # a placeholder entry that no text can produce
                return b""
        if self.byte_fallback and (match := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        return piece.replace(_SPACE_PIECE, " ").encode()

    def encode_isolated(self, contents: Sequence[bytes]) -> list[list[int]]:
        """Ids of byte strings as texts of their own.

        They may spell other bytes: content that is not UTF-8, a space put before, a normaliser.
        """
        if self.prefix_always:  # each would begin with a space too many
            return [self.encode_raw(content) for content in contents]
        texts = [content.decode(errors="replace") for content in contents]
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_raw(self, content: bytes) -> list[int]:
        """Ids from the model alone, past normaliser and pre-tokeniser.

        Bytes that it cannot spell are left out.
        """
        if self.byte_level:
            return self._model_ids("".join(map(_ALPHABET.__getitem__, content)))
        ids: list[int] = []
        while content:
            try:
                return ids + self._model_ids(content.decode().replace(" ", _SPACE_PIECE))
            except UnicodeDecodeError as error:
                head = content[: error.start].decode().replace(" ", _SPACE_PIECE)
                ids += self._model_ids(head) if head else []
                ids += self._byte_ids(content[error.start : error.end])
                content = content[error.end :]
        return ids

    def _model_ids(self, spelling: str) -> list[int]:
        return [token.id for token in self.tokenizer.model.tokenize(spelling)]

    def _byte_ids(self, content: bytes) -> list[int]:
        ids = [self.tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in content]
        return [id for id in ids if id is not None]
