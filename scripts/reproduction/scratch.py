"""Tiny pairs from scratch: a teacher that knows sums, and a student of another tokenizer.

Of the texts three answers in ten are wrong. The teacher has read every sum many times and knows the
right answer, the likeliest; the student reads each a few times, which does not tell it. What it
answers right beyond cross-entropy alone, it has from the teacher.

`packed`: the student has a token for `111` and the teacher one a digit. `split`: the reverse.
`shared`: both have one for `111`, and the student spells `Answer` in letters. `narrow-packed` and
so on are the same on sums that all begin with 1, so that a first digit tells nothing.
"""

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from flax import nnx
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from reproduction.cells import Cell, trained_model
from reproduction.methods import KINDS, METHODS
from xtoken_jax.config import merged
from xtoken_jax.files import replaced_file
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.weights import save_model
from xtoken_jax.text import ByteTokenizer

_WIDE = range(105, 435, 11), range(11, 121, 11)
_NARROW = range(85, 115), range(20, 30)
# Digits of the student, digits of the teacher, and what is added to what: 300 sums.
SETTINGS = {
    "packed": ("packs", "splits", _WIDE),
    "split": ("splits", "packs", _WIDE),
    "shared": ("spells", "packs", _WIDE),
    "narrow-packed": ("packs", "splits", _NARROW),
    "narrow-split": ("splits", "packs", _NARROW),
    "narrow-shared": ("spells", "packs", _NARROW),
}
Numbers = tuple[range, range]
_WRONG_SHARE = 0.3
_BEGIN, _END = "<|begin_of_text|>", "<|end_of_text|>"


@dataclass(frozen=True)
class Budget:
    """How much is read."""

    teacher_steps: int
    teacher_reads: int
    """Texts of each sum."""
    student_steps: int
    student_reads: int


BUDGETS = {
    "small": Budget(teacher_steps=2400, teacher_reads=200, student_steps=400, student_reads=3),
    "full": Budget(teacher_steps=2400, teacher_reads=200, student_steps=1200, student_reads=3),
}


def cells(directory: Path, budget: str, seeds: Sequence[int]) -> Iterator[Cell]:
    """All cells: one method of each kind in all settings with all seeds, then the variants.

    Teachers and random students are made when they are needed.
    """
    size = BUDGETS[budget]
    variants = [name for name in METHODS if name not in KINDS]
    # Where numerals are shared, the variants hardly differ.
    with_variants = [setting for setting in SETTINGS if not setting.endswith("shared")]
    for names, settings in ((KINDS, SETTINGS), (variants, with_variants)):
        for seed in seeds:
            for setting in settings:
                for name in names:
                    config = partial(_cell_config, directory, size, setting, name, seed)
                    yield Cell(setting, name, seed, config)


def _cell_config(
    directory: Path, size: Budget, setting: str, method: str, seed: int
) -> dict[str, Any]:
    """The config of a cell; makes its texts, its teacher and its student."""
    digits, of_teacher, numbers = SETTINGS[setting]
    # A sum's texts and tokens are those of its numbers.
    directory = directory / ("narrow-sums" if numbers is _NARROW else "wide-sums")
    teacher = _teacher(directory, size, of_teacher, numbers)
    config = _config(
        _model(directory / f"{digits}-student-{seed}", digits, numbers, seed=seed + 1),
        _texts(directory / f"student-{seed}.jsonl", numbers, reads=size.student_reads, seed=seed),
        _sums(directory / "sums.jsonl", numbers),
        steps=size.student_steps,
        batch_size=2,
    )
    teaching = {"model": str(teacher), "dtype": "float32", "length": 384}
    config = merged(config, {"seed": seed, "teachers": {"sums": teaching}})
    return METHODS[method].applied_to(config, "sums")


def _teacher(directory: Path, size: Budget, digits: str, numbers: Numbers) -> Path:
    """The teacher of one tokenizer, trained on cross-entropy."""
    config = _config(
        _model(directory / f"{digits}-before", digits, numbers, seed=0),
        _texts(directory / "teacher.jsonl", numbers, reads=size.teacher_reads, seed=1_000_003),
        _sums(directory / "sums.jsonl", numbers),
        steps=size.teacher_steps,
        batch_size=4,
    )
    return trained_model(config, directory / f"{digits}-teacher")


def _config(
    model: Path, train: Path, heldout: Path, *, steps: int, batch_size: int
) -> dict[str, Any]:
    return {
        "student": {"model": str(model), "dtype": "float32", "remat": "none"},
        "teachers": {},
        "data": {
            "train": [{"kind": "jsonl", "path": str(train)}],
            "batch_size": batch_size,
            "student_length": 256,
        },
        "loss": {"block_tokens": 1024},
        "optim": {
            "steps": steps,
            "learning_rate": 5e-3,
            "warmup_steps": 20,
            "weight_decay": 0.01,
        },
        "checkpoint": {"every_steps": 1_000_000, "keep": 1},
        "evaluation": {
            "sources": [{"kind": "jsonl", "path": str(heldout)}],
            "max_documents": 300,
            "batch_size": 100,
            "length": 32,
            "max_questions": 300,
            "max_new_tokens": 7,
        },
    }


def sum_text(first: int, second: int, answer: int) -> str:
    """A sum in the form from which evaluation makes a question."""
    return f"{first}+{second}\nAnswer: ####{answer}"


def noisy_texts(numbers: Numbers, *, reads: int, seed: int) -> list[str]:
    """Each sum `reads` times, shuffled; three answers in ten are another sum's."""
    draw = random.Random(seed)
    answers = sorted({first + second for first, second in product(*numbers)})
    texts = []
    for first, second in product(*numbers):
        right = first + second
        wrong = [answer for answer in answers if answer != right]
        for _ in range(reads):
            is_wrong = draw.random() < _WRONG_SHARE
            texts.append(sum_text(first, second, draw.choice(wrong) if is_wrong else right))
    draw.shuffle(texts)
    return texts


def _texts(path: Path, numbers: Numbers, *, reads: int, seed: int) -> Path:
    return _jsonl(path, noisy_texts(numbers, reads=reads, seed=seed))


def _sums(path: Path, numbers: Numbers) -> Path:
    return _jsonl(path, [sum_text(a, b, a + b) for a, b in product(*numbers)])


def _jsonl(path: Path, texts: Sequence[str]) -> Path:
    if not path.exists():
        with replaced_file(path) as temporary:
            temporary.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def _model(directory: Path, digits: str, numbers: Numbers, *, seed: int) -> Path:
    """A random model with its tokenizer; kept once made."""
    if (directory / "config.json").is_file():
        return directory
    # Whole hundreds, so that not only numbers of the sums have tokens.
    largest = math.ceil(sum(each[-1] for each in numbers) / 100) * 100 - 1
    with_tokenizer = directory.with_name(f"{digits}-tokenizer")
    digit_tokenizer(with_tokenizer, digits, largest=largest)
    tokenizer = ByteTokenizer.load(with_tokenizer)
    architecture = Architecture(
        vocab_size=tokenizer.num_tokens,
        hidden_size=96,
        ffn_size=384,
        num_layers=2,
        num_heads=4,
        num_kv_heads=4,
        head_dim=24,
        tied=True,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    model = Decoder(architecture, rngs=nnx.Rngs(seed))
    save_model(model, directory, tokenizer_dir=with_tokenizer)
    return directory


def digit_tokenizer(directory: Path, digits: str, *, largest: int) -> Path:
    """Write a byte-level tokenizer.

    Args:
        directory: Gets its files.
        digits: `splits` cuts `111` into digits, `packs` does not, and `spells` packs digits and
            cuts `Answer` into letters.
        largest: Numbers up to it are one token each, where they are not cut.
    """
    number = r"\p{N}" if digits == "splits" else r"\p{N}{1,3}"
    cut = Regex(rf"\p{{L}}+|{number}|\s+|[^\s\p{{L}}\p{{N}}]+")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(cut, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,  # more than there are merges to make
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[_BEGIN, _END],
        show_progress=False,
    )
    numbers = [str(number) for number in range(largest + 1)]
    words = ["####"] if digits == "spells" else ["####", "Answer"]
    tokenizer.train_from_iterator([*numbers, *words], trainer)
    begin = (_BEGIN, tokenizer.token_to_id(_BEGIN))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_BEGIN} $A", special_tokens=[begin]
    )
    directory.mkdir(parents=True, exist_ok=True)
    declared = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _BEGIN,
        "eos_token": _END,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(declared))
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory
