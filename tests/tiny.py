"""A tiny experiment: two byte-level tokenizers, a random model for each, and texts of arithmetic.

The tokenizers differ as Llama-3 and SmolLM2 do: one packs up to three digits into a token and
begins documents with a bos token; the other has a token a digit, and no bos.
"""

import dataclasses
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from xtoken_jax.config import ExperimentConfig, check_config, merged
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.weights import save_model
from xtoken_jax.text import ByteTokenizer

_VOCAB_SIZE = {True: 400, False: 320}  # by whether digits are packed
_NAMES = ("Ann", "Ben", "Cleo", "Dev", "Elif", "Zoë")
_THINGS = ("apples", "books", "coins", "dozen eggs", "cafés")


def sentences(count: int, *, seed: int = 0) -> list[str]:
    """Short arithmetic problems, every one with digits and some with letters beyond ASCII."""
    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        first, second = draw.randrange(10, 900), draw.randrange(2, 99)
        texts.append(
            f"{draw.choice(_NAMES)} has {first} {draw.choice(_THINGS)} and gets {second} more: "
            f"{first} + {second} = {first + second}."
        )
    return texts


def tiny_tokenizer(directory: Path, *, packs_digits: bool) -> Path:
    """Write a tokenizer that cuts `201` into one token, or into three."""
    begin, end = ("<|begin_of_text|>", "<|end_of_text|>") if packs_digits else (None, "<|im_end|>")
    digits = r"\p{N}{1,3}" if packs_digits else r"\p{N}"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(rf" ?\p{{L}}+|{digits}|\s+|[^\s\p{{L}}\p{{N}}]+"), "isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token in (begin, end) if token is not None]
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCAB_SIZE[packs_digits],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=control,
        show_progress=False,
    )
    numbers = [str(number) for number in range(100)] * 9 + ["201"] * 999
    tokenizer.train_from_iterator([*sentences(200, seed=99), *numbers], trainer)
    if begin is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
        )
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    declared = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end}
    if begin is not None:
        declared["bos_token"] = begin
    (directory / "tokenizer_config.json").write_text(json.dumps(declared))
    return directory


def tiny_model(
    directory: Path, *, packs_digits: bool, layers: int = 2, width: int = 32, seed: int = 0
) -> Path:
    """Write a random llama with its tokenizer, as a Hugging Face directory.

    Its vocabulary has a few rows more than the tokenizer has tokens, as real models' do.
    """
    with_tokenizer = tiny_tokenizer(
        directory.with_name(f"{directory.name}-tokenizer"), packs_digits=packs_digits
    )
    tokenizer = ByteTokenizer.load(with_tokenizer)
    architecture = Architecture(
        vocab_size=tokenizer.num_tokens + 3,
        hidden_size=width,
        ffn_size=2 * width,
        num_layers=layers,
        num_heads=4,
        num_kv_heads=2,
        head_dim=width // 4,
        tied=True,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    model = nnx.eval_shape(lambda: Decoder(architecture, rngs=nnx.Rngs(0)))
    draw = np.random.default_rng(seed)  # NumPy's, because JAX would compile for every shape
    for path, parameter in nnx.iter_graph(model):
        if isinstance(parameter, nnx.Param):
            values = 0.2 * draw.normal(size=parameter.get_value().shape)
            parameter.set_value(jnp.asarray(values + ("norm" in path[-1]), jnp.float32))
    save_model(model, directory, tokenizer_dir=with_tokenizer)
    return directory


def tiny_config(tmp_path: Path, **overrides: Any) -> ExperimentConfig:
    """A run of a few steps whose files are all under `tmp_path`.

    Args:
        tmp_path: Models and texts are written here, once.
        overrides: Sections or fields of `ExperimentConfig`; a mapping changes only its own keys.
    """
    student, teacher = tmp_path / "student-model", tmp_path / "teacher-model"
    if not student.exists():
        tiny_model(student, packs_digits=True, seed=1)
        tiny_model(teacher, packs_digits=False, seed=2)
        lines = [json.dumps({"text": text}) for text in sentences(60)]
        (tmp_path / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (tmp_path / "heldout.txt").write_text(sentences(1, seed=7)[0], encoding="utf-8")
    content = {
        "run_dir": str(tmp_path / "run"),
        "student": {"model": str(student), "dtype": "float32"},
        "teachers": {"tiny": {"model": str(teacher), "dtype": "float32", "length": 96}},
        "data": {
            "train": [{"kind": "jsonl", "path": str(tmp_path / "train.jsonl")}],
            "batch_size": 4,
            "student_length": 64,
        },
        "loss": {"block_tokens": 64},
        "optim": {"steps": 6, "learning_rate": 3e-3},
        "checkpoint": {"every_steps": 3},
        "evaluation": {
            "sources": [{"kind": "text", "path": str(tmp_path / "heldout.txt")}],
            "batch_size": 4,
            "length": 128,
        },
    }
    return check_config(merged(content, overrides), name="tiny config")


def with_teacher(config: ExperimentConfig, name: str = "tiny", **changes: Any) -> ExperimentConfig:
    """The experiment with a teacher changed; a mapping changes only its own fields."""
    teacher = config.teachers[name]
    for section, value in changes.items():
        if isinstance(value, Mapping):
            changes[section] = dataclasses.replace(getattr(teacher, section), **value)
    teachers = {**config.teachers, name: dataclasses.replace(teacher, **changes)}
    return dataclasses.replace(config, teachers=teachers)
