"""Vocabulary files of other programs -> Hugging Face fast tokenizers.

Reads tiktoken rank files, Tekken JSON, SentencePiece BPE models and plain `tokenizer.json`; writes
a directory that `transformers.AutoTokenizer` loads. Needs only `tokenizers`: the formats are read
here, without tiktoken, sentencepiece or protobuf.

A rank file has no merges: tiktoken joins any two neighbours whose concatenation is in the table,
lowest rank first. A merge for every split of every token into two tokens, ordered by the rank of
the result, makes the Hugging Face BPE do the same.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.models import BPE

from xtoken_jax.errors import XTokenError
from xtoken_jax.text.families import TokenizerFamily
from xtoken_jax.text.pieces import byte_alphabet
from xtoken_jax.text.sentencepiece_model import PieceType, SentencePieceModel, read_sentencepiece

CONVERTER_VERSION = 1  # raise it when the files written here change: caches then convert anew

_SPACE = "▁"  # how SentencePiece writes a space


def convert_tiktoken(source: Path, out: Path, *, family: TokenizerFamily) -> None:
    """Convert a tiktoken rank file; control tokens take the ids after the ranks."""
    ranks = read_ranks(source)
    tokenizer = _byte_level_bpe(ranks, first_id=0, specials=(), pattern=family.pattern)
    _add_tokens(tokenizer, family.specials, special=True)
    _add_tokens(tokenizer, family.plain_added, special=False)
    if family.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = _byte_level_post_processor(tokenizer, family)
    write_tokenizer(tokenizer, out, **_declared(family))


def convert_tekken(source: Path, out: Path, *, family: TokenizerFamily) -> None:
    """Convert a Tekken JSON file; control tokens take the ids before the ranks.

    Raises:
        XTokenError: `source` is not a Tekken file.
    """
    try:
        data = json.loads(source.read_text(encoding="utf-8"))
        config = data["config"]
        num_specials = config["default_num_special_tokens"]
        # The file ranks more tokens than the model has; the published vocabulary is its head.
        num_ranks = config["default_vocab_size"] - num_specials
        vocab = data["vocab"][:num_ranks]
        ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in vocab}
        pattern = config["pattern"]
    except (KeyError, TypeError, ValueError) as error:
        raise XTokenError(f"`{source}` must be a Tekken JSON file, got {error!r}") from error
    fillers = (f"<SPECIAL_{i}>" for i in range(len(family.specials), num_specials))
    specials = (*family.specials, *fillers)
    tokenizer = _byte_level_bpe(ranks, first_id=num_specials, specials=specials, pattern=pattern)
    _add_tokens(tokenizer, specials, special=True)
    tokenizer.post_processor = _byte_level_post_processor(tokenizer, family)
    write_tokenizer(tokenizer, out, **_declared(family))


def convert_sentencepiece(source: Path, out: Path, *, family: TokenizerFamily) -> None:
    """Convert a SentencePiece BPE model with byte fallback; merges are rebuilt from the scores.

    Raises:
        XTokenError: `source` is no SentencePiece model, or one of another kind (Unigram, without
            byte fallback, with a normaliser table).
    """
    model = read_sentencepiece(source)
    tokenizer = sentencepiece_bpe(model, f"`{source}`")
    if family.bos is not None and family.add_bos:
        put_bos_in_front(tokenizer, family.bos)
    write_tokenizer(tokenizer, out, **_declared(family))


def convert_tokenizer_json(source: Path, out: Path, *, family: TokenizerFamily) -> None:
    """Take a `tokenizer.json` as it is and add the configuration that names its control tokens.

    Raises:
        XTokenError: `source` is not a `tokenizer.json` that the tokenizers library reads.
    """
    try:
        tokenizer = Tokenizer.from_file(str(source))
    except Exception as error:  # the library raises bare Exception
        raise XTokenError(f"`{source}` must be a tokenizer.json, got: {error}") from error
    write_tokenizer(tokenizer, out, **_declared(family))


def sentencepiece_bpe(model: SentencePieceModel, name: str) -> Tokenizer:
    """The Hugging Face tokenizer of a SentencePiece BPE model; merges come from the scores.

    Args:
        model: The pieces and what else was declared.
        name: What an error calls it.

    Raises:
        XTokenError: a model of another kind (Unigram, without byte fallback, with a normaliser
            table).
    """
    _require_supported(model, name)
    vocab = {piece.text: index for index, piece in enumerate(model.pieces)}
    tokenizer = Tokenizer(
        BPE(
            vocab,
            _merges_from_scores(model),
            unk_token=model.pieces[model.unk_id].text,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    steps: list[Any] = [normalizers.Replace(" ", _SPACE)]
    decode: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.add_dummy_prefix:
        steps.insert(0, normalizers.Prepend(_SPACE))
        decode.append(decoders.Strip(" ", 1, 0))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.decoder = decoders.Sequence(decode)
    controls = (PieceType.UNKNOWN, PieceType.CONTROL)
    _add_tokens(tokenizer, (p.text for p in model.pieces if p.type in controls), special=True)
    # SentencePiece never cuts these; it joins them to what follows, where Hugging Face puts a
    # prefix space again after any added token.
    symbols = (p.text for p in model.pieces if p.type == PieceType.USER_DEFINED)
    _add_tokens(tokenizer, symbols, special=False)
    return tokenizer


def put_bos_in_front(tokenizer: Tokenizer, bos: str) -> None:
    """Let encoding with special tokens begin a text with `bos`, a token that is there."""
    tokenizer.post_processor = _bos_template(tokenizer, bos)


def write_tokenizer(
    tokenizer: Tokenizer,
    out: Path,
    *,
    bos: str | None,
    eos: str,
    pad: str,
    unk: str | None,
    max_length: int,
    chat_template: str | None = None,
) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` into the directory `out`.

    Raises:
        XTokenError: a declared control token is not in the vocabulary.
    """
    declared = {"bos_token": bos, "eos_token": eos, "pad_token": pad, "unk_token": unk}
    absent = [
        token for token in declared.values() if token and tokenizer.token_to_id(token) is None
    ]
    if absent:
        raise XTokenError(f"control tokens must be in the vocabulary, missing: {absent}")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        **declared,
    }
    if chat_template is not None:
        config["chat_template"] = chat_template
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (out / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def read_ranks(source: Path) -> dict[bytes, int]:
    """Read a tiktoken rank file: one base64 byte string and its rank per line.

    Raises:
        XTokenError: a line is not of that form (the line is named), or ranks are not 0, 1, 2, ...
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(source.read_bytes().splitlines(), start=1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise XTokenError(f"`{source}` line {number}: {error}") from error
    # Ids of the control tokens follow the ranks, so a hole would shift every one of them.
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise XTokenError(f"`{source}`: ranks must be 0..{len(ranks) - 1}, each once")
    return ranks


def merges_from_ranks(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
    """Every split of every token into two tokens, in the order in which tiktoken would join them.

    Source: GPT-4-style rank files, as read by tiktoken's `byte_pair_merge`.
    """
    found = []
    for token, rank in ranks.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in ranks and right in ranks:
                found.append((rank, ranks[left], ranks[right], left, right))
    found.sort()
    return [(left, right) for _, _, _, left, right in found]


def _byte_level_bpe(
    ranks: Mapping[bytes, int], *, first_id: int, specials: tuple[str, ...], pattern: str
) -> Tokenizer:
    alphabet = byte_alphabet()

    def spell(token: bytes) -> str:
        # Latin-1 turns byte n into code point n, which is what `translate` looks up.
        return token.decode("latin-1").translate(alphabet)

    vocab = {special: index for index, special in enumerate(specials)}
    vocab |= {spell(token): rank + first_id for token, rank in ranks.items()}
    merges = [(spell(left), spell(right)) for left, right in merges_from_ranks(ranks)]
    # ignore_merges: a piece that is a token as a whole is taken whole, as tiktoken does, even
    # where no sequence of merges leads to it.
    tokenizer = Tokenizer(BPE(vocab, merges, fuse_unk=False, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _add_tokens(tokenizer: Tokenizer, tokens: Iterable[str], *, special: bool) -> None:
    added = [AddedToken(token, normalized=False, special=special) for token in tokens]
    (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)


def _byte_level_post_processor(tokenizer: Tokenizer, family: TokenizerFamily) -> Any:
    byte_level = processors.ByteLevel(trim_offsets=False)
    if family.bos is None or not family.add_bos:
        return byte_level
    return processors.Sequence([byte_level, _bos_template(tokenizer, family.bos)])


def _bos_template(tokenizer: Tokenizer, bos: str) -> Any:
    return processors.TemplateProcessing(
        single=f"{bos}:0 $A:0",
        pair=f"{bos}:0 $A:0 {bos}:1 $B:1",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )


def _declared(family: TokenizerFamily) -> dict[str, Any]:
    return {
        "bos": family.bos,
        "eos": family.eos,
        "pad": family.pad,
        "unk": family.unk,
        "max_length": family.max_length,
    }


def _require_supported(model: SentencePieceModel, name: str) -> None:
    problems = {
        "model_type must be BPE": not model.is_bpe,
        "byte_fallback must be on": not model.byte_fallback,
        "the normaliser table must be empty": model.has_charsmap,
        "remove_extra_whitespaces must be off": model.remove_extra_whitespaces,
    }
    failed = [message for message, holds in problems.items() if holds]
    if failed:
        raise XTokenError(f"{name}: {'; '.join(failed)}")


def _merges_from_scores(model: SentencePieceModel) -> list[tuple[str, str]]:
    """Every split of every normal piece into two, in the order in which SentencePiece joins them.

    Best score first; of equal scores the leftmost. The Hugging Face BPE needs a strict order of
    pairs instead, and the longer left half first comes to the same: where one score is shared (runs
    of spaces have -1e9 in Mistral's files) the leftmost piece grows until it is as long as can be.
    """
    ids = {p.text: i for i, p in enumerate(model.pieces) if p.type == PieceType.NORMAL}
    found = []
    for text, index in ids.items():
        for cut in range(1, len(text)):
            left, right = text[:cut], text[cut:]
            if left in ids and right in ids:
                found.append((-model.pieces[index].score, -len(left), left, right))
    found.sort()
    return [(left, right) for _, _, left, right in found]
