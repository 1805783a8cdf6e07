"""Tokenizers of a few hundred tokens, one for each kind of model, and how to load them."""

import json
import random
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from xtoken_jax.text import ByteTokenizer, Encoded
from xtoken_jax.text.pieces import byte_alphabet

_WORDS = (
    "the red fox ran home over old bridges while unhappy singers sang louder than 201 apples cost "
    "2024 pears happily nobody listened & a dozen <b>bold</b> letters, 0123456789 more! x = A"
)
_draw = random.Random(0)
PROSE = [" ".join(_draw.choices(_WORDS.split(" "), k=12)) for _ in range(300)]


def load(directory: Path, tokenizer: Tokenizer, **declared) -> ByteTokenizer:
    """Write a tokenizer into a directory as Hugging Face would, and load it."""
    directory.mkdir(exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(declared))
    return ByteTokenizer.load(directory)


def text_bytes(tokenizer: ByteTokenizer, encoded: Encoded, index: int = 0) -> bytes:
    """The bytes of one encoded text, without the spaces that a tokenizer puts before it."""
    own = slice(*encoded.offsets_B[index : index + 2])
    return b"".join(tokenizer.contents(encoded)[own])


def ids_of(encoded: Encoded, index: int = 0) -> list[int]:
    """Ids of one text as plain numbers."""
    return encoded[index].tolist()


def byte_level(extra=(), **options) -> Tokenizer:
    """Byte-level BPE: the 256 bytes and a few pairs."""
    vocabulary = {piece: id for id, piece in enumerate(byte_alphabet())}
    vocabulary |= {piece: 256 + i for i, piece in enumerate(extra)}
    merges = [tuple(piece) for piece in extra if len(piece) == 2]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **options})
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def sentencepiece(*, byte_fallback: bool = True) -> Tokenizer:
    """SentencePiece BPE as Llama-2 has it: a space before every text, also before a space."""
    pieces = ["<unk>", "<s>", "</s>"]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    pieces += ["▁", "a", "b", "▁a", "\n"]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: id for id, piece in enumerate(pieces)},
            [("▁", "a")],
            unk_token="<unk>",
            byte_fallback=byte_fallback,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def unigram(*, byte_fallback: bool = True, special: bool = True) -> Tokenizer:
    """SentencePiece Unigram, trained; `<s>` and `</s>` are pieces of its model, as in T5's.

    Args:
        byte_fallback: What the pieces cannot spell becomes bytes, else `<unk>`.
        special: Declare `<s>` and `</s>` added tokens, as files that transformers writes do.
    """
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        unk_token="<unk>",
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=sorted(set("</>s0xA▁")),
        show_progress=False,
    )
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(PROSE, trainer)
    pieces = [tuple(entry) for entry in json.loads(trained.to_str())["model"]["vocab"]]
    if byte_fallback:
        pieces += [(f"<0x{byte:02X}>", 0.0) for byte in range(256)]  # SentencePiece's score
    tokenizer = Tokenizer(models.Unigram(pieces, 0, byte_fallback))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    if special:
        tokenizer.add_special_tokens(["<s>", "</s>"])
    return tokenizer


def wordpiece(*, lowercase: bool = True) -> Tokenizer:
    """BERT's WordPiece, trained."""
    control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    tokenizer.train_from_iterator(
        PROSE,
        trainers.WordPieceTrainer(vocab_size=200, special_tokens=control, show_progress=False),
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer
