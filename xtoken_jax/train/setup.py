"""All that a run needs before its first step."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from xtoken_jax.config import ExperimentConfig
from xtoken_jax.data import Lengths, RowSource, Tally
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.evaluate import fitting_texts
from xtoken_jax.losses import Tables, check_tables
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.transplant import transplant
from xtoken_jax.models.weights import load_model
from xtoken_jax.ops import common_set_to_device, to_device
from xtoken_jax.projection import (
    Projection,
    build_projection,
    exact_pairs,
    fold_targets,
    hybrid_pairs,
    load_projection,
    retokenise,
)
from xtoken_jax.text import ByteTokenizer, resolve
from xtoken_jax.train import data
from xtoken_jax.train.step import TEACHER


@dataclass(frozen=True)
class Tokenizers:
    """Both sides' tokenizers, and where the student's files are for the export."""

    student: ByteTokenizer
    teacher: ByteTokenizer
    student_directory: Path


def load_tokenizers(config: ExperimentConfig) -> Tokenizers:
    """Load both, fetching what is not here yet."""
    reference = config.student.tokenizer or config.student.model
    return Tokenizers(
        ByteTokenizer.load(reference),
        ByteTokenizer.load(config.teacher.model),
        resolve(reference, weights=False),
    )


def tokenizer_references(config: ExperimentConfig) -> tuple[str, dict[str, str]]:
    """What the student's tokenizer and the teachers' are called."""
    return config.student.tokenizer or config.student.model, {TEACHER: config.teacher.model}


def load_student(
    config: ExperimentConfig,
    run_dir: Path,
    student: ByteTokenizer,
    mesh: Mesh,
    *,
    resuming: bool,
) -> Decoder:
    """The student before the first step, its vocabulary transplanted where that is asked for.

    The transplanted model is kept in `run_dir/student_init`.
    """
    options = {
        "dtype": jnp.dtype(config.student.dtype),
        "param_dtype": jnp.float32,
        "mesh": mesh,
        "remat": config.student.remat,
    }
    if config.student.tokenizer is None:
        directory = resolve(config.student.model)
        return _checked(load_model(directory, layers=config.student.layers, **options), student)
    initial = run_dir / "student_init"
    # A run that starts again without a checkpoint may have another body or tokenizer by now.
    if not resuming or not (initial / "config.json").is_file():
        body = ByteTokenizer.load(config.student.model)
        pieces = retokenise(student, body)
        transplant(
            resolve(config.student.model),
            resolve(config.student.tokenizer, weights=False),
            initial,
            piece_ids_N=pieces.ids_N,
            piece_offsets_V=pieces.offsets_V,
            layers=config.student.layers,
        )
    return _checked(load_model(initial, **options), student)


def load_teaching(
    config: ExperimentConfig, tokenizers: Tokenizers, mesh: Mesh
) -> tuple[Decoder | None, Projection | None]:
    """The teacher, in one dtype throughout, and W; neither for cross-entropy alone."""
    if config.loss.distillation == "none":
        return None, None
    projection = _projection(config, tokenizers)
    dtype = jnp.dtype(config.teacher.dtype)
    directory = resolve(config.teacher.model)
    teacher = load_model(directory, dtype=dtype, param_dtype=dtype, mesh=mesh)
    return _checked(teacher, tokenizers.teacher), projection


def _checked(model: Decoder, tokenizer: ByteTokenizer) -> Decoder:
    if model.vocab_size < tokenizer.num_tokens:
        raise XTokenError(
            f"model must have a row for each of the {tokenizer.num_tokens} tokens of "
            f"{tokenizer.name}, got {model.vocab_size}; name the student's tokenizer in "
            "`student.tokenizer` to transplant it"
        )
    return model


def _projection(config: ExperimentConfig, tokenizers: Tokenizers) -> Projection:
    """W from its file, or built."""
    options = config.projection
    student, teacher = tokenizers.student, tokenizers.teacher
    if options.path is not None:
        return load_projection(options.path, student=student, teacher=teacher)
    return build_projection(
        student,
        teacher,
        beta=options.beta,
        gamma=options.gamma,
        max_pieces=options.max_pieces,
        long_pieces=options.long_pieces,
        canonicalization=options.canonicalization,
        reverse=options.reverse,
        special_similarity=options.special_similarity,
    )


def device_tables(
    config: ExperimentConfig,
    projection: Projection,
    tokenizers: Tokenizers,
    *,
    student_vocab_size: int,
    teacher_vocab_size: int,
) -> Tables:
    """What the loss needs of the two vocabularies, on the device."""
    sizes = {"student_vocab_size": student_vocab_size, "teacher_vocab_size": teacher_vocab_size}
    common = fold_ids_U = None
    loss = config.loss
    if loss.distillation in ("gold", "h_kl"):
        pairs = exact_pairs(projection)
        if loss.distillation == "h_kl":
            pairs = hybrid_pairs(projection, threshold=loss.threshold)
        common = common_set_to_device(
            pairs,
            num_student_tokens=projection.num_student_tokens,
            num_teacher_tokens=projection.num_teacher_tokens,
            **sizes,
        )
    if loss.unreachable == "fold":
        targets_U = fold_targets(projection, tokenizers.student, tokenizers.teacher)
        padding = teacher_vocab_size - len(targets_U)
        fold_ids_U = jnp.asarray(np.pad(targets_U, (0, padding), constant_values=-1))
    tables = Tables(to_device(projection, **sizes), common, fold_ids_U)
    try:
        check_tables(loss.objective(), tables)
    except ValueError as error:
        raise UsageError(f"`loss`: {error}") from error
    return tables


def load_rows(config: ExperimentConfig, tokenizers: Tokenizers) -> tuple[RowSource, Tally]:
    """Everything to train on, and what became of bad records."""
    tally = Tally(on_error=config.data.on_error, max_error_share=config.data.max_error_share)
    teachers = {TEACHER: tokenizers.teacher}
    plan = data.make_plan(config.data, tokenizers.student, teachers, row_lengths(config))
    return data.load_rows(config.data, plan, tally), tally


def row_lengths(config: ExperimentConfig) -> Lengths:
    """Tokens a row, by side."""
    return Lengths(config.data.student_length, {TEACHER: config.data.teacher_length})


def heldout_texts(config: ExperimentConfig, tokenizers: Tokenizers) -> list[str]:
    """What is evaluated: of each source the first documents that fit on both sides."""
    texts: list[str] = []
    both: Sequence[ByteTokenizer] = (tokenizers.student, tokenizers.teacher)
    for source in config.evaluation.sources:
        candidates = [document.text for document in data.read_documents(source)]
        fitting = fitting_texts(candidates, both, length=config.evaluation.length)
        texts += fitting[: config.evaluation.max_documents]
    if config.evaluation.sources and not texts:
        raise XTokenError(
            f"no held-out text fits in `evaluation.length` {config.evaluation.length} tokens"
        )
    return texts
