"""From a vocabulary's spelling of a token to its bytes, and back."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from xtoken_jax.text.engines import Engines

SPACE_PIECE = "\u2581"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def byte_alphabet() -> str:
    """The 256 characters that byte-level BPE writes for bytes 0..255, in order.

    Printable Latin-1 characters stand for themselves; the other bytes, in order, take the code
    points from 256 on. Source: the GPT-2 tokenizer.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return "".join(chr(byte) if byte in printable else chr(next(others)) for byte in range(256))


_ALPHABET = byte_alphabet()
_TO_LATIN1 = {ord(character): byte for byte, character in enumerate(_ALPHABET)}


@dataclass(frozen=True)
class PieceCodec:
    """How byte-level BPE, or SentencePiece BPE or Unigram, writes bytes in its vocabulary.

    Attributes:
        engines: The tokenizer itself.
        byte_level: The GPT-2 byte alphabet; otherwise SentencePiece spelling.
        byte_fallback: `<0xNN>` pieces stand for single bytes.
        prefix_space: A text that begins with a letter gets a space put before it.
        prefix_always: So does a text that already begins with a space.
    """

    engines: Engines
    byte_level: bool
    byte_fallback: bool
    prefix_space: bool = False
    prefix_always: bool = False

    @classmethod
    def probed(cls, engines: Engines, *, byte_level: bool, byte_fallback: bool) -> "PieceCodec":
        """The codec of a tokenizer, of which two short texts show what it puts before them."""
        codec = cls(engines, byte_level, byte_fallback)
        first, second = (codec._encoded_bytes(text) for text in ("a", " a"))
        return cls(
            engines, byte_level, byte_fallback, first.startswith(b" "), second.startswith(b"  ")
        )

    def _encoded_bytes(self, text: str) -> bytes:
        encoding = self.engines.tokenizer.encode(text, add_special_tokens=False)
        return b"".join(map(self.to_bytes, encoding.tokens))

    def is_space(self, character: str) -> bool:
        """Whether the tokenizer writes this character as a space."""
        return character == " " or (not self.byte_level and character == SPACE_PIECE)

    def to_bytes(self, piece: str) -> bytes:
        """The bytes of an ordinary (not an added) vocabulary entry."""
        if self.byte_level:
            try:
                return bytes(map(_TO_LATIN1.__getitem__, map(ord, piece)))
            except KeyError:  # a placeholder entry that no text can produce
                return b""
        if self.byte_fallback and (match := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        return piece.replace(SPACE_PIECE, " ").encode()

    def encode_isolated(self, contents: Sequence[bytes]) -> list[list[int]]:
        """Ids of byte strings as texts of their own.

        They may spell other bytes: content that is not UTF-8, a space put before, a normaliser.
        """
        if self.prefix_always:  # each would begin with a space too many
            return [self.encode_raw(content) for content in contents]
        return self.engines.ids([content.decode(errors="replace") for content in contents])

    def encode_raw(self, content: bytes) -> list[int]:
        """Ids from the model alone, past normaliser and pre-tokeniser.

        Bytes that it cannot spell are left out.
        """
        if self.byte_level:
            return self.engines.model_ids("".join(map(_ALPHABET.__getitem__, content)))
        ids: list[int] = []
        while content:
            try:
                return ids + self.engines.model_ids(content.decode().replace(" ", SPACE_PIECE))
            except UnicodeDecodeError as error:
                head = content[: error.start].decode().replace(" ", SPACE_PIECE)
                ids += self.engines.model_ids(head) if head else []
                ids += self._byte_ids(content[error.start : error.end])
                content = content[error.end :]
        return ids

    def _byte_ids(self, content: bytes) -> list[int]:
        ids = [self.engines.tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in content]
        return [id for id in ids if id is not None]
