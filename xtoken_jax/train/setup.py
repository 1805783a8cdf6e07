"""All that a run needs before its first step."""

import itertools
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from xtoken_jax.config import (
    DistillationConfig,
    ExperimentConfig,
    ProjectionConfig,
    SourceConfig,
    TeacherConfig,
)
from xtoken_jax.data import (
    Lengths,
    PieceTries,
    PreparedRows,
    Rows,
    Tally,
    build_piece_tries,
)
from xtoken_jax.errors import UsageError, XTokenError
from xtoken_jax.evaluate import fitting_texts, questions_of
from xtoken_jax.losses import Tables, Tries, check_tables
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.lora import Adapters, add_adapters, is_trained_with_adapters
from xtoken_jax.models.transplant import transplant
from xtoken_jax.models.weights import load_model
from xtoken_jax.ops import common_set_to_device, to_device
from xtoken_jax.ops.piece_trie import piece_trie_to_device
from xtoken_jax.processes import is_first, wait_for_all
from xtoken_jax.projection import (
    Projection,
    build_projection,
    exact_pairs,
    fold_targets,
    hybrid_pairs,
    load_projection,
    retokenise,
)
from xtoken_jax.text import ByteTokenizer, resolve, same_token_ids
from xtoken_jax.train import data
from xtoken_jax.train.evaluation import Heldout


@dataclass(frozen=True)
class Tokenizers:
    """All sides' tokenizers, and where the student's files are for the export."""

    student: ByteTokenizer
    teachers: dict[str, ByteTokenizer]
    student_directory: Path


def load_tokenizers(config: ExperimentConfig) -> Tokenizers:
    """Load all, fetching what is not here yet.

    Raises:
        UsageError: logits of teachers with different tokenizers are to be averaged.
    """
    student, teachers = tokenizer_references(config)
    tokenizers = Tokenizers(
        ByteTokenizer.load(student),
        {name: ByteTokenizer.load(reference) for name, reference in teachers.items()},
        resolve(student, weights=False),
    )
    teaching = [tokenizers.teachers[name] for name in config.teaching]
    if config.loss.combine == "mean_logits":
        for other in teaching[1:]:
            if not same_token_ids(teaching[0], other):
                raise UsageError(
                    "`loss.combine` mean_logits needs teachers of one tokenizer, got "
                    f"{teaching[0].name} and {other.name}"
                )
    return tokenizers


def tokenizer_references(config: ExperimentConfig) -> tuple[str, dict[str, str]]:
    """What the student's tokenizer and the teachers' are called."""
    teachers = {name: teacher.model for name, teacher in config.teachers.items()}
    return config.student.tokenizer or config.student.model, teachers


def load_student(
    config: ExperimentConfig,
    run_dir: Path,
    student: ByteTokenizer,
    mesh: Mesh,
    *,
    resuming: bool,
) -> Decoder:
    """The student before the first step, its vocabulary transplanted where that is asked for.

    The transplanted model is kept in `run_dir/student_init`. Adapters are fresh.
    """
    lora = config.student.lora
    options = {
        "dtype": jnp.dtype(config.student.dtype),
        "param_dtype": jnp.dtype(lora.base_dtype) if lora.rank else jnp.float32,
        "mesh": mesh,
        "remat": config.student.remat,
    }
    if config.student.tokenizer is None:
        directory = resolve(config.student.model)
        model = load_model(directory, layers=config.student.layers, **options)
        return with_adapters(_checked(model, student), config, mesh)
    initial = run_dir / "student_init"
    # A run that starts again without a checkpoint may have another body or tokenizer by now.
    if not resuming or not (initial / "config.json").is_file():
        if is_first():
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
        wait_for_all("transplant")
    return with_adapters(_checked(load_model(initial, **options), student), config, mesh)


def with_adapters(model: Decoder, config: ExperimentConfig, mesh: Mesh | None) -> Decoder:
    """The student with adapters where it is to have some; what is trained is float32."""
    lora = config.student.lora
    if not lora.rank:
        return model
    if lora.embeddings:
        for parameter in (model.embedding_VD, model.lm_head_VD):
            if parameter is not None:
                parameter.set_value(parameter.get_value().astype(jnp.float32))
    adapters = Adapters(lora.rank, lora.alpha, lora.targets)
    add_adapters(model, adapters, seed=config.seed, mesh=mesh)
    return model


def split_student(
    model: Decoder, config: ExperimentConfig
) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """The student's graph, what of it is trained, and what stays as it is."""
    lora = config.student.lora
    trained = is_trained_with_adapters(lora.embeddings) if lora.rank else nnx.Param
    graph, params, rest = nnx.split(model, trained, ...)
    return graph, params, rest


@dataclass(frozen=True)
class Teaching:
    """A teacher that something is learned from.

    Attributes:
        model: In one dtype throughout.
        projection: W.
        tries: Both vocabularies by the pieces of the other, where the loss is C-KL.
    """

    model: Decoder
    projection: Projection
    tries: PieceTries | None


def load_teaching(
    config: ExperimentConfig, tokenizers: Tokenizers, mesh: Mesh
) -> dict[str, Teaching]:
    """The teachers that something is learned from, by name."""
    loaded = {}
    for name, teacher in config.teaching.items():
        tokenizer = tokenizers.teachers[name]
        dtype = jnp.dtype(teacher.dtype)
        model = load_model(resolve(teacher.model), dtype=dtype, param_dtype=dtype, mesh=mesh)
        loaded[name] = teaching_with(teacher, model, tokenizers.student, tokenizer)
    return loaded


def teaching_with(
    teacher: TeacherConfig, model: Decoder, student: ByteTokenizer, tokenizer: ByteTokenizer
) -> Teaching:
    """A teacher's model with what its loss needs of both vocabularies."""
    projection = _projection(teacher.projection, student, tokenizer)
    tries = build_piece_tries(student, tokenizer) if teacher.loss.kind == "c_kl" else None
    return Teaching(_checked(model, tokenizer), projection, tries)


def _checked(model: Decoder, tokenizer: ByteTokenizer) -> Decoder:
    if model.vocab_size < tokenizer.num_tokens:
        raise XTokenError(
            f"model must have a row for each of the {tokenizer.num_tokens} tokens of "
            f"{tokenizer.name}, got {model.vocab_size}; name the student's tokenizer in "
            "`student.tokenizer` to transplant it"
        )
    return model


def _projection(
    options: ProjectionConfig, student: ByteTokenizer, teacher: ByteTokenizer
) -> Projection:
    """W from its file, or built."""
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
    teaching: Mapping[str, Teaching],
    tokenizers: Tokenizers,
    *,
    student_vocab_size: int,
) -> dict[str, Tables]:
    """What each teacher's loss needs of the two vocabularies, on the device."""
    rows = {n: each.model.embedding_VD.get_value().shape[0] for n, each in teaching.items()}
    if config.loss.combine == "mean_logits":
        rows = dict.fromkeys(rows, min(rows.values(), default=0))
    tables = {}
    for name, each in teaching.items():
        loss = config.teachers[name].loss
        sizes = {"student_vocab_size": student_vocab_size, "teacher_vocab_size": rows[name]}
        try:
            tables[name] = _tables(loss, each, tokenizers.student, tokenizers.teachers[name], sizes)
        except ValueError as error:
            raise UsageError(f"`teachers.{name}.loss`: {error}") from error
    return tables


def _tables(
    loss: DistillationConfig,
    teaching: Teaching,
    student: ByteTokenizer,
    teacher: ByteTokenizer,
    sizes: dict[str, int],
) -> Tables:
    projection = teaching.projection
    common = fold_ids_U = tries = None
    if loss.kind in ("gold", "h_kl"):
        pairs = exact_pairs(projection)
        if loss.kind == "h_kl":
            pairs = hybrid_pairs(projection, threshold=loss.threshold)
        common = common_set_to_device(
            pairs,
            num_student_tokens=projection.num_student_tokens,
            num_teacher_tokens=projection.num_teacher_tokens,
            **sizes,
        )
    if loss.unreachable == "fold":
        targets_U = fold_targets(projection, student, teacher)
        padding = sizes["teacher_vocab_size"] - len(targets_U)
        fold_ids_U = jnp.asarray(np.pad(targets_U, (0, padding), constant_values=-1))
    if teaching.tries is not None:
        exchanged = {
            "student_vocab_size": sizes["teacher_vocab_size"],
            "teacher_vocab_size": sizes["student_vocab_size"],
        }
        by_teacher, by_student = teaching.tries
        tries = Tries(
            piece_trie_to_device(by_teacher, **sizes),
            piece_trie_to_device(by_student, **exchanged),
        )
    tables = Tables(to_device(projection, **sizes), common, fold_ids_U, tries)
    check_tables(loss.objective(), tables)
    return tables


def load_rows(
    config: ExperimentConfig, tokenizers: Tokenizers
) -> tuple[Rows | PreparedRows, Tally]:
    """Everything to train on, and what became of bad records."""
    tally = Tally(on_error=config.data.on_error, max_error_share=config.data.max_error_share)
    sides = tokenizers.student, tokenizers.teachers
    plan = data.make_plan(config.data, *sides, row_lengths(config))
    return data.load_rows(config.data, plan, tally), tally


def row_lengths(config: ExperimentConfig) -> Lengths:
    """Tokens a row, by side."""
    teachers = {name: teacher.length for name, teacher in config.teachers.items()}
    return Lengths(config.data.student_length, teachers)


def heldout(config: ExperimentConfig, tokenizers: Tokenizers) -> list[Heldout]:
    """What is read in evaluation and what is answered, by source.

    Read are the first documents of a source that fit on all sides; answered are its first
    questions, where its texts are word problems.

    Raises:
        XTokenError: none of a source's documents fits.
    """
    all_sides = [tokenizers.student, *tokenizers.teachers.values()]
    settings = config.evaluation
    found: list[Heldout] = []
    for source in settings.sources:
        title = _title(source, {each.title for each in found})
        candidates = [document.text for document in data.read_documents(source)]
        fitting = fitting_texts(candidates, all_sides, length=settings.length)
        if not fitting:
            raise XTokenError(
                f"no held-out text of {title} fits in `evaluation.length` {settings.length} tokens"
            )
        questions = questions_of(candidates)[: settings.max_questions]
        found.append(Heldout(title, fitting[: settings.max_documents], questions))
    return found


def _title(source: SourceConfig, taken: Container[str]) -> str:
    """The name of the source's file without its folders, or its kind; numbered where taken."""
    title = Path(source.path).name if source.path is not None else source.kind
    numbers = itertools.count(2)
    unique = title
    while unique in taken:
        unique = f"{title} ({next(numbers)})"
    return unique
