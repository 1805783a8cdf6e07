"""A Hugging Face fast tokenizer that answers in bytes."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from xtoken_jax.errors import XTokenError
from xtoken_jax.text.pieces import PieceCodec, unknown_piece
from xtoken_jax.text.references import resolve
from xtoken_jax.text.roles import DECLARED_ROLES, Role, roles_of_control_tokens


@dataclass(frozen=True)
class Encoded:
    """Token ids of a batch of texts, end to end in one array.

    Attributes:
        ids_N: int32, all tokens.
        offsets_B: int64, `[B + 1]`; text `i` owns `ids_N[offsets_B[i]:offsets_B[i + 1]]`.
        prefixed_N: Indices into `ids_N` of tokens that begin with a space that the tokenizer
            put there and the text does not have (at most one a text).
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

    Control tokens (special added tokens, and the model's token for what it cannot spell)
    contribute `b""` and have roles. Text never makes control tokens: `encode("<|eot_id|>")` gives
    the ordinary tokens of those characters.

    Attributes:
        num_tokens: One past the largest id; a model's padded `vocab_size` may be larger.
        token_bytes: Bytes of each id; `b""` for control tokens and for ids without a token.
        roles: Roles of each control token, by id.
        bos_id: The token that the tokenizer itself puts before a text, or None.
        eos_id: The declared end of a document, or None.
        fingerprint: SHA-256 of all that decides tokenisation, in hexadecimal.
    """

    def __init__(self, serialised: str, declared: Mapping[str, str], *, name: str) -> None:
        tokenizer = Tokenizer.from_str(serialised)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        first_of_text = tokenizer.encode("a", add_special_tokens=True).ids[:1]
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.name = name
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        added = tokenizer.get_added_tokens_decoder()
        control = {token.content: id for id, token in added.items() if token.special}
        parsed = json.loads(serialised)
        unknown = unknown_piece(parsed["model"])
        if unknown in vocabulary and vocabulary[unknown] not in added:
            control[unknown] = vocabulary[unknown]
        self.num_tokens = max(vocabulary.values()) + 1
        self.roles: dict[int, Role] = roles_of_control_tokens(control, declared)
        self._codec = PieceCodec.of(parsed, tokenizer)
        self.token_bytes = self._token_bytes(vocabulary, added)
        self.bos_id = next(
            (id for id in first_of_text if self.roles.get(id, Role.NONE) & Role.BOS), None
        )
        self.eos_id = control.get(declared.get("eos_token", ""))
        self.fingerprint = _fingerprint(parsed, declared, bos=self.bos_id)

    @classmethod
    def load(cls, reference: str | Path) -> "ByteTokenizer":
        """Load from a local directory, `asset:NAME` or a hub id.

        Raises:
            XTokenError: there is no readable `tokenizer.json`, or the files beside it are broken.
        """
        directory = resolve(str(reference), weights=False)
        path = directory / "tokenizer.json"
        if not path.is_file():
            raise XTokenError(
                f"`{reference}` must be a fast tokenizer, but has no tokenizer.json; "
                "save it once with transformers' AutoTokenizer(..., use_fast=True).save_pretrained"
            )
        declared = declared_tokens(directory)
        try:
            return cls(path.read_text(encoding="utf-8"), declared, name=str(reference))
        except XTokenError as error:
            raise XTokenError(f"`{reference}`: {error}") from error
        except Exception as error:  # the Rust library raises bare Exception
            raise XTokenError(f"{path} is not a tokenizer file: {error}") from error

    def _token_bytes(self, vocabulary: Mapping[str, int], added: Mapping[int, Any]) -> list[bytes]:
        token_bytes = [b""] * self.num_tokens
        for piece, id in vocabulary.items():
            if id in added and id not in self.roles:
                # Added but not special: stands for its own characters in the decoded text.
                token_bytes[id] = added[id].content.encode()
            elif id not in self.roles:
                token_bytes[id] = self._codec.to_bytes(piece)
        return token_bytes

    def encode(self, texts: Sequence[str], *, bos: bool = False, eos: bool = False) -> Encoded:
        """Tokenise a batch.

        Args:
            texts: Each is one document; control tokens spelled in it stay ordinary text.
            bos: Begin each with `bos_id`, where the tokenizer has one.
            eos: End each with `eos_id`, where the tokenizer has one.
        """
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        head = [self.bos_id] if bos and self.bos_id is not None else []
        tail = [self.eos_id] if eos and self.eos_id is not None else []
        rows = [np.array([*head, *e.ids, *tail], np.int32) for e in encodings]
        offsets_B = np.zeros(len(rows) + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=offsets_B[1:])
        prefixed = [
            offsets_B[i] + len(head)
            for i, text in enumerate(texts)
            if self._codec.adds_space(text)
            and len(rows[i]) > len(head) + len(tail)
            and self.token_bytes[rows[i][len(head)]].startswith(b" ")
        ]
        ids_N = np.concatenate(rows) if rows else np.zeros(0, np.int32)
        return Encoded(ids_N, offsets_B, np.array(prefixed, np.int64))

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
        """What each token of a batch adds to its text, without a space put before the text."""
        contents = [self.token_bytes[id] for id in encoded.ids_N]
        for index in encoded.prefixed_N:
            contents[index] = contents[index][1:]
        return contents

    def display(self, id: int) -> str:
        """A token as text: bytes that are not UTF-8 as escapes, a control token by its name."""
        content = self.token_bytes[id]
        if not content:
            return self._tokenizer.id_to_token(id) or f"<{id}>"
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


def _fingerprint(parsed: Mapping[str, Any], declared: Mapping[str, str], *, bos: int | None) -> str:
    # Parsed and sorted, so that a file written again by another library is the same. The
    # post-processor, which libraries rewrite, decides nothing here but the bos.
    ignored = {"padding", "truncation", "post_processor"}
    deciding = {key: parsed[key] for key in parsed.keys() - ignored}
    identity = json.dumps([deciding, dict(declared), bos], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()


def declared_tokens(directory: Path) -> dict[str, str]:
    """The `bos_token`, `eos_token`, `pad_token` and `unk_token` that a directory declares.

    Raises:
        XTokenError: `tokenizer_config.json` or the older `special_tokens_map.json` is broken.
    """
    declared = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = directory / name
        if not path.is_file():
            continue
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            for field in DECLARED_ROLES.keys() & fields.keys():
                value = fields[field]
                content = value["content"] if isinstance(value, dict) else value
                if content:
                    declared[field] = str(content)
        except (ValueError, KeyError, AttributeError) as error:
            raise XTokenError(f"{path} must be a JSON object of settings: {error}") from error
    return declared
