"""Sides of an alignment made of byte strings, without a tokenizer."""

import json

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from xtoken_jax.align.sides import Side
from xtoken_jax.align.tables import ByteTable
from xtoken_jax.text import ByteTokenizer, Encoded
from xtoken_jax.text.pieces import byte_alphabet


class Vocabulary:
    """Gives every byte string it meets a token."""

    def __init__(self) -> None:
        self.ids: dict[bytes, int] = {}

    def encoded(self, texts: list[list[bytes]]) -> Encoded:
        ids = [self.ids.setdefault(token, len(self.ids)) for text in texts for token in text]
        offsets = np.cumsum([0, *map(len, texts)])
        return Encoded(np.array(ids, np.int32), offsets, np.zeros(0, np.int64))

    def tokenizer(self) -> ByteTokenizer:
        """A byte-level tokenizer with the tokens met so far; it has no merges."""
        alphabet = byte_alphabet()
        spelt = {"".join(alphabet[byte] for byte in token): id for token, id in self.ids.items()}
        tokenizer = Tokenizer(models.BPE(vocab=spelt, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        return ByteTokenizer(json.dumps(json.loads(tokenizer.to_str())), {}, name="test")

    def side(self, texts: list[list[bytes]]) -> Side:
        """Both sides of a test may come from one vocabulary, each with a table of its own."""
        encoded = self.encoded(texts)
        if not self.ids:
            self.ids[b"unused"] = 0
        return Side.of(encoded, ByteTable.of(self.tokenizer()), name="test")
