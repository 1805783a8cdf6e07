"""The few fields of a SentencePiece `.model` that tokenisation needs, read from the wire.

The file is one protobuf message. Its format needs five lines to read (a key, then a varint, four
or eight bytes, or a length and that many bytes), so that no protobuf package is needed.
Source: sentencepiece_model.proto (field numbers), protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from xtoken_jax.errors import XTokenError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BPE = 2  # TrainerSpec.ModelType


class PieceType(IntEnum):
    """ModelProto.SentencePiece.Type."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Piece:
    """One vocabulary entry; its id is its place in the list."""

    text: str
    score: float
    type: PieceType


@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """A SentencePiece model; `score` is a log-probability for Unigram, minus the rank for BPE."""

    pieces: list[Piece]
    is_bpe: bool
    byte_fallback: bool
    unk_id: int
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    has_charsmap: bool


def read_sentencepiece(source: Path) -> SentencePieceModel:
    """Read a SentencePiece model file.

    Raises:
        XTokenError: `source` is not a SentencePiece model.
    """
    try:
        return _parse(source.read_bytes())
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        raise XTokenError(f"`{source}` must be a SentencePiece model, got: {error!r}") from error


def _parse(data: bytes) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(data):
        if number == 1:
            pieces.append(_piece(dict(_fields(value))))
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normalizer = dict(_fields(value))
    if not pieces:
        raise ValueError("no pieces")
    # The second argument of each `get` is the default of the .proto file.
    return SentencePieceModel(
        pieces=pieces,
        is_bpe=trainer.get(3, 1) == _BPE,
        byte_fallback=bool(trainer.get(35, 0)),
        unk_id=trainer.get(40, 0),
        has_charsmap=bool(normalizer.get(2, b"")),
        add_dummy_prefix=bool(normalizer.get(3, 1)),
        remove_extra_whitespaces=bool(normalizer.get(4, 1)),
    )


def _piece(fields: dict[int, Any]) -> Piece:
    (score,) = struct.unpack("<f", fields.get(2, bytes(4)))
    return Piece(fields[1].decode("utf-8"), score, PieceType(fields.get(3, PieceType.NORMAL)))


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of one message, in order; a nested message is left as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
        else:
            if wire == _BYTES:
                size, at = _varint(data, at)
            else:
                size = {_FIXED32: 4, _FIXED64: 8}[wire]
            value, at = data[at : at + size], at + size
        if at > len(data):
            raise ValueError("the file is cut short")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while data[at] & 0x80:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
    return value | data[at] << shift, at + 1
