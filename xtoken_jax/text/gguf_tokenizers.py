"""The tokenizer inside a GGUF file -> a Hugging Face fast tokenizer."""

from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from xtoken_jax.errors import XTokenError
from xtoken_jax.text.convert_tokenizer import put_bos_in_front, sentencepiece_bpe
from xtoken_jax.text.pieces import SPACE_PIECE
from xtoken_jax.text.sentencepiece_model import Piece, PieceType, SentencePieceModel


def read_tokenizer(fields: Mapping[str, Any], kind: tuple[str, str]) -> Tokenizer:
    """The tokenizer of a GGUF file's fields.

    Args:
        fields: All of the file.
        kind: `tokenizer.ggml.model` and `tokenizer.ggml.pre` that its architecture has.

    Raises:
        XTokenError: the file has another kind, or a setting that the conversion does not know.
    """
    found = (fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre"))
    if found != kind:
        raise XTokenError(f"GGUF tokenizer must be {_DESCRIPTIONS[kind]} {kind}, got {found}")
    try:
        return _READERS[kind](fields)
    except KeyError as error:
        raise XTokenError(f"GGUF field {error} is missing") from error


def _smollm(fields: Mapping[str, Any]) -> Tokenizer:
    tokens = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"]
    controls = [t for t, kind in zip(tokens, types, strict=True) if kind == PieceType.CONTROL]
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in controls]
    )
    return tokenizer


def _sentencepiece(fields: Mapping[str, Any]) -> Tokenizer:
    given = {
        name.removeprefix("tokenizer.ggml."): value
        for name, value in fields.items()
        if name.startswith("tokenizer.ggml.")
    }
    refused = [name for name in ("add_eos_token", "add_sep_token") if given.get(name)]
    if refused:
        raise XTokenError(f"GGUF tokenizer settings that are not supported: {', '.join(refused)}")
    rows = zip(given["tokens"], given["scores"], given["token_type"], strict=True)
    model = SentencePieceModel(
        pieces=[_piece(text, score, kind) for text, score, kind in rows],
        is_bpe=True,
        byte_fallback=PieceType.BYTE in given["token_type"],
        unk_id=given["unknown_token_id"],
        # The defaults are llama.cpp's for a tokenizer of this kind.
        add_dummy_prefix=given.get("add_space_prefix", True),
        remove_extra_whitespaces=given.get("remove_extra_whitespaces", False),
        has_charsmap="precompiled_charsmap" in given,
    )
    tokenizer = sentencepiece_bpe(model, "GGUF tokenizer")
    if given.get("add_bos_token", True):
        put_bos_in_front(tokenizer, model.pieces[given["bos_token_id"]].text)
    return tokenizer


def _piece(text: str, score: float, kind: int) -> Piece:
    try:
        type = PieceType(kind)
    except ValueError as error:
        raise XTokenError(f"GGUF `token_type` of {text!r}: {error}") from error
    if type == PieceType.USER_DEFINED:
        # They are cut out of the text as it is, before its spaces are spelled otherwise; llama.cpp
        # has written runs of spaces in both ways.
        text = text.replace(SPACE_PIECE, " ")
    return Piece(text, score, type)


_READERS: Mapping[tuple[str, str], Callable[[Mapping[str, Any]], Tokenizer]] = {
    ("gpt2", "smollm"): _smollm,
    ("llama", "default"): _sentencepiece,
}
_DESCRIPTIONS = {
    ("gpt2", "smollm"): "byte-level BPE cut as SmolLM's",
    ("llama", "default"): "SentencePiece BPE",
}
