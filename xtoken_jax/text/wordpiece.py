"""WordPiece (BERT): words at the white space, a space before each, and the rest of a word."""

from collections.abc import Sequence
from dataclasses import dataclass

from xtoken_jax.text.engines import Engines


@dataclass(frozen=True)
class WordPieceCodec:
    """How WordPiece writes bytes in its vocabulary.

    A piece that begins a word stands for a space and its own characters, as decoding joins words
    with spaces; one that continues a word, for its characters without the mark. The first word of
    a text therefore begins with a space that the text need not have.

    Attributes:
        engines: The tokenizer itself.
        mark: What a piece that continues a word begins with, `##` for BERT.
        longest: Characters of the longest piece.
    """

    engines: Engines
    mark: str
    longest: int
    prefix_space: bool = True
    prefix_always: bool = False

    def is_space(self, character: str) -> bool:
        """Whether this is the character that a word's space stands for."""
        return character == " "

    def to_bytes(self, piece: str) -> bytes:
        """The bytes of an ordinary (not an added) vocabulary entry."""
        if piece.startswith(self.mark):
            return piece.removeprefix(self.mark).encode()
        return b" " + piece.encode()

    def encode_isolated(self, contents: Sequence[bytes]) -> list[list[int]]:
        """Ids of byte strings as texts: other bytes where one is no sequence of whole words."""
        return self.engines.ids([content.decode(errors="replace") for content in contents])

    def encode_raw(self, content: bytes) -> list[int]:
        """Ids of the rest of a word and of the words after it, past normaliser and pre-tokeniser.

        What the vocabulary cannot spell is left out, or becomes the unknown token.
        """
        try:
            rest, *words = content.decode().split(" ")
        except UnicodeDecodeError:
            return []
        ids = self._continuation(rest)
        for word in words:
            ids += self.engines.model_ids(word) if word else []
        return ids

    def _continuation(self, rest: str) -> list[int]:
        """The longest continuing piece that fits, again and again; empty where none does."""
        ids: list[int] = []
        while rest:
            for stop in range(min(len(rest), self.longest), 0, -1):
                id = self.engines.tokenizer.token_to_id(self.mark + rest[:stop])
                if id is not None:
                    ids.append(id)
                    rest = rest[stop:]
                    break
            else:
                return []
        return ids
