"""A Hugging Face fast tokenizer that answers in bytes."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from xtoken_jax.errors import XTokenError
from xtoken_jax.text.codecs import codec_of, unknown_piece
from xtoken_jax.text.engines import Engines
from xtoken_jax.text.references import resolve
from xtoken_jax.text.roles import Role, is_frame, roles_of_control_tokens
from xtoken_jax.text.tokenizer_files import declared_tokens, find_tokenizer_json, read_tokenizer


@dataclass(frozen=True)
class Encoded:
    """Token ids of a batch of texts, end to end in one array.

    Attributes:
        ids_N: int32, all tokens.
        offsets_B: int64, `[B + 1]`; text `i` owns `ids_N[offsets_B[i]:offsets_B[i + 1]]`.
        prefixed_N: Indices into `ids_N`, ascending, of tokens that begin with a space that the
            tokenizer put there and the text does not have. One may begin a text, and one may
            follow each added token in it.
    """

    ids_N: np.ndarray
    offsets_B: np.ndarray
    prefixed_N: np.ndarray

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.offsets_B) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        """The ids of one text."""
        return self.ids_N[self.offsets_B[index] : self.offsets_B[index + 1]]


class ByteTokenizer:
    """Wraps a fast tokenizer; `token_bytes[id]` is what a token adds to the decoded text.

    Control tokens (special added tokens, those that frame a turn, and the model's token for what
    it cannot spell) contribute `b""` and have roles. A text makes them only if `encode` is asked
    to parse them: else `encode(["<|eot_id|>"])` gives the ordinary tokens of those characters.

    Attributes:
        num_tokens: One past the largest id; a model's padded `vocab_size` may be larger.
        token_bytes: Bytes of each id; `b""` for control tokens and for ids without a token.
        roles: Roles of each control token, by id.
        bos_id: The token that the tokenizer itself puts before a text, or None.
        eos_id: The declared end of a document, or None.
        fingerprint: SHA-256 of all that decides tokenisation, in hexadecimal.
    """

    def __init__(self, serialised: str, declared: Mapping[str, str], *, name: str) -> None:
        tokenizer, parsed = read_tokenizer(serialised)
        self.name = name
        first_of_text = tokenizer.encode("a", add_special_tokens=True).ids[:1]
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        unknown = unknown_piece(parsed["model"])
        framing = _declare_special(tokenizer, lambda token: is_frame(token) or token == unknown)
        added = tokenizer.get_added_tokens_decoder()
        control = {token.content: id for id, token in added.items() if token.special}
        if unknown in vocabulary:
            control[unknown] = vocabulary[unknown]
        self.num_tokens = max(vocabulary.values()) + 1
        self.roles: dict[int, Role] = roles_of_control_tokens(control, declared)
        self._engines = Engines(tokenizer, parsed["model"], control.values())
        self._codec = codec_of(parsed, self._engines)
        self.token_bytes = self._token_bytes(vocabulary, added)
        # A text is cut at these first; the unknown token, though, comes out of the model.
        self._cuts_V = np.zeros(self.num_tokens, bool)
        self._cuts_V[[id for id, token in added.items() if token.content != unknown]] = True
        self.bos_id = next(
            (id for id in first_of_text if self.roles.get(id, Role.NONE) & Role.BOS), None
        )
        self.eos_id = control.get(declared.get("eos_token", ""))
        self.fingerprint = _fingerprint(parsed, declared, bos=self.bos_id, framing=framing)

    @classmethod
    def load(cls, reference: str | Path) -> "ByteTokenizer":
        """Load from a local directory, `asset:NAME` or a hub id.

        Raises:
            XTokenError: there is no readable `tokenizer.json`, the files beside it are broken, or
                the vocabulary's spelling does not tell the bytes.
        """
        directory = resolve(str(reference), weights=False)
        path = find_tokenizer_json(directory, str(reference))
        declared = declared_tokens(directory)
        try:
            return cls(path.read_text(encoding="utf-8"), declared, name=str(reference))
        except (XTokenError, UnicodeDecodeError) as error:
            raise XTokenError(f"{path}: {error}") from error

    def _token_bytes(self, vocabulary: Mapping[str, int], added: Mapping[int, Any]) -> list[bytes]:
        token_bytes = [b""] * self.num_tokens
        for piece, id in vocabulary.items():
            if id in added and id not in self.roles:
                # Added but not special: stands for its own characters in the decoded text.
                token_bytes[id] = added[id].content.encode()
            elif id not in self.roles:
                token_bytes[id] = self._codec.to_bytes(piece)
        return token_bytes

    def encode(
        self,
        texts: Sequence[str],
        *,
        bos: bool = False,
        eos: bool = False,
        parse_control: bool = False,
    ) -> Encoded:
        """Tokenise a batch.

        Args:
            texts: Each is one document.
            bos: Begin each with `bos_id`, where the tokenizer has one.
            eos: End each with `eos_id`, where the tokenizer has one.
            parse_control: Control tokens spelled in a text are these tokens, as in the output of
                a chat template; else they are ordinary text, as is right for text of others.

        Raises:
            TypeError: `texts` is one text, whose characters would pass for texts.
        """
        if isinstance(texts, str):
            raise TypeError(f"`texts` must be a list of texts, got the text {texts!r:.40}")
        head = [self.bos_id] if bos and self.bos_id is not None else []
        tail = [self.eos_id] if eos and self.eos_id is not None else []
        id_lists = self._engines.ids(texts, parse_control=parse_control)
        rows = [np.array([*head, *ids, *tail], np.int32) for ids in id_lists]
        offsets_B = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets_B[1:])
        ids_N = np.concatenate(rows) if rows else np.zeros(0, np.int32)
        prefixed = (
            [
                offsets_B[index] + len(head) + at
                for index, text in enumerate(texts)
                for at in self._prefixed(text, id_lists[index], parse_control)
            ]
            if self._codec.prefix_space
            else []
        )
        return Encoded(ids_N, offsets_B, np.array(prefixed, np.int64))

    def starts(self, text: str, *, parse_control: bool = False) -> list[int]:
        """The character of a text at which each token that `encode` gives for it begins."""
        return self._engines.starts(text, parse_control=parse_control)

    def _prefixed(self, text: str, ids: Sequence[int], parse_control: bool) -> list[int]:
        """Which tokens of a text begin with a space that was put there."""
        firsts = [0, *(np.flatnonzero(self._cuts_V[np.array(ids, np.int32)]) + 1).tolist()]
        spaced = [at for at in firsts if at < len(ids) and self._starts_with_space(ids[at])]
        if self._codec.prefix_always or not spaced:
            return spaced
        if spaced == [0]:
            return [] if self._codec.is_space(text[:1]) else spaced
        starts = self._engines.starts(text, parse_control=parse_control)
        return [at for at in spaced if not self._has_space(text, starts[at])]

    def _starts_with_space(self, id: int) -> bool:
        return self.token_bytes[id].startswith(b" ")

    def _has_space(self, text: str, start: int) -> bool:
        """Whether the text has a space at or, as where a word begins, just before a place."""
        return any(map(self._codec.is_space, text[max(start - 1, 0) : start + 1]))

    def pieces(self, contents: Sequence[bytes]) -> list[list[int]]:
        """Tokenise byte strings, valid UTF-8 or not, each as if inside a text.

        Where the tokenizer would change the bytes, its model alone cuts them.

        Returns:
            Ids whose bytes concatenate to exactly the input; an empty list where the
            vocabulary cannot spell it.
        """
        results = self._codec.encode_isolated(contents)
        return [
            ids if self.bytes_of(ids) == content else self._spelled(content)
            for ids, content in zip(results, contents, strict=True)
        ]

    def _spelled(self, content: bytes) -> list[int]:
        ids = self._codec.encode_raw(content)
        return ids if self.bytes_of(ids) == content else []

    def bytes_of(self, ids: Sequence[int] | np.ndarray) -> bytes:
        """The bytes that tokens contribute, a tokenizer's prefix space included."""
        return b"".join([self.token_bytes[id] for id in ids])

    def contents(self, encoded: Encoded) -> list[bytes]:
        """What each token of a batch adds to its text, without a space that was put before it."""
        contents = [self.token_bytes[id] for id in encoded.ids_N]
        for index in encoded.prefixed_N:
            contents[index] = contents[index][1:]
        return contents

    @functools.cached_property
    def lengths_V(self) -> np.ndarray:
        """Bytes that each token contributes, int32; 0 for control tokens."""
        return np.fromiter(map(len, self.token_bytes), np.int32, self.num_tokens)

    def byte_ends(self, encoded: Encoded) -> np.ndarray:
        """Where each token ends within its text, in bytes; control tokens, where they stand.

        Returns:
            int64 `[N]`. A space that was put before a text is not counted.
        """
        lengths_N = self.lengths_V[encoded.ids_N].astype(np.int64)
        lengths_N[encoded.prefixed_N] -= 1
        sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths_N)])
        starts_B = sums[encoded.offsets_B[:-1]]
        return sums[1:] - np.repeat(starts_B, np.diff(encoded.offsets_B))

    def display(self, id: int) -> str:
        """A token as text: bytes that are not UTF-8 as escapes, a control token by its name."""
        content = self.token_bytes[id]
        if not content:
            return self._engines.tokenizer.id_to_token(id) or f"<{id}>"
        return content.decode(errors="backslashreplace")

    @functools.cached_property
    def id_of_bytes(self) -> dict[bytes, int]:
        """The canonical token of a byte string: where several spell it, the one emitted."""
        by_bytes: dict[bytes, list[int]] = {}
        for id, content in enumerate(self.token_bytes):
            if content:
                by_bytes.setdefault(content, []).append(id)
        doubled = [content for content, ids in by_bytes.items() if len(ids) > 1]
        emitted = dict(zip(doubled, self.pieces(doubled), strict=True))
        return {
            content: emitted[content][0] if len(emitted.get(content, ())) == 1 else ids[0]
            for content, ids in by_bytes.items()
        }

    @functools.cached_property
    def id_of_role(self) -> dict[Role, int]:
        """One token for each role: the declared eos, else the lowest id that has the role."""
        ids: dict[Role, int] = {}
        for id in sorted(self.roles):
            for role in self.roles[id]:
                ids.setdefault(role, id)
        if self.eos_id is not None:
            ids[Role.EOS] = self.eos_id
        return ids


def _declare_special(tokenizer: Tokenizer, is_control: Callable[[str], bool]) -> list[str]:
    """Make special what else is control; what was declared so before is left out of the result."""
    plain = [token for token in tokenizer.get_added_tokens_decoder().values() if not token.special]
    tokens = [token for token in plain if is_control(token.content)]
    for token in tokens:
        token.special = True
    tokenizer.add_special_tokens(tokens)
    return sorted(token.content for token in tokens)


def _fingerprint(
    parsed: Mapping[str, Any], declared: Mapping[str, str], *, bos: int | None, framing: list[str]
) -> str:
    # Parsed and sorted, so that a file written again by another library is the same. The
    # post-processor, which libraries rewrite, decides nothing here but the bos.
    ignored = {"padding", "truncation", "post_processor"}
    deciding = {key: parsed[key] for key in parsed.keys() - ignored}
    identity = json.dumps([deciding, dict(declared), bos, framing], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()
