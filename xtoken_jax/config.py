"""Every setting of an experiment, with its default: the only place that has any.

A config is a YAML file of these fields. Values are checked here, against each other too, so that
nothing below this layer meets a setting that cannot work.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_type_hints

import pydantic
import yaml
from pydantic import Field

from xtoken_jax.data import Format, OnError, Part, SourceKind
from xtoken_jax.errors import UsageError
from xtoken_jax.losses import ChunkMerge, LossName, Objective, Unreachable
from xtoken_jax.projection import Canonicalization, LongPieces

Positive = Annotated[int, Field(gt=0)]
Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Section:
    """A part of a config; a key that is not a field is an error."""

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig(_Section):
    """The frozen teacher."""

    model: str
    """Local directory, `asset:NAME` or hub id."""
    dtype: Dtype = "bfloat16"
    """Of its parameters and activations."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentConfig(_Section):
    """The student, and the vocabulary that it is to have."""

    model: str
    """Local directory, `asset:NAME` or hub id of the body."""
    tokenizer: str | None = None
    """Transplant this tokenizer's vocabulary onto the body; None keeps the model's own."""
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Layers of the body to keep, in order; None keeps all."""
    dtype: Dtype = "bfloat16"
    """Of activations; parameters and optimiser state are float32."""
    remat: Literal["none", "dots", "full"] = "dots"
    """What the backward pass computes again instead of keeping."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectionConfig(_Section):
    """W."""

    path: str | None = None
    """A file from `xtoken project`; None builds W when the run starts."""
    beta: Annotated[float, Field(gt=0)] = 0.9
    gamma: Annotated[float, Field(ge=0, le=1)] = 0.1
    max_pieces: Positive = 4
    long_pieces: LongPieces = "truncate"
    canonicalization: Canonicalization = "exact"
    reverse: bool = False
    special_similarity: bool = False
    learned: bool = False
    """Train W's weights under P-KL with the student; its pattern stays."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    """Of a learned W."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig(_Section):
    """What is minimised."""

    distillation: Literal[LossName, "none"] = "p_kl"
    """`none` trains on cross-entropy alone."""
    chunk_merge: ChunkMerge = "chain_rule"
    """How the tokens of a chunk count: all of them, the `first`, or the reference's `mean`."""
    temperature: Annotated[float, Field(gt=0)] = 1.0
    reverse: bool = False
    """KL from the student to the teacher."""
    unreachable: Unreachable = "mask"
    """P-KL: drop teacher tokens that W cannot reach, keep them, or fold them."""
    top_k: Positive | None = None
    """P-KL: compare on the batch's teacher tokens of largest logit alone."""
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.6
    """H-KL: smallest weight in W of a pair that widens the common set."""
    uncommon_top_k: Positive | None = None
    """GOLD and H-KL: sort only so many of the tokens outside the common set."""
    max_chunk_tokens: Positive = 16
    """With `mean`: longer chunks do not count."""
    scaling: Literal["dynamic", "fixed"] = "dynamic"
    """`dynamic` brings the distillation loss to the size of cross-entropy at every step."""
    distillation_weight: Annotated[float, Field(ge=0)] = 1.0
    """With `fixed` scaling."""
    cross_entropy_weight: Annotated[float, Field(ge=0)] = 1.0
    """With `fixed` scaling."""
    block_tokens: Positive = 4096
    """Student positions whose logits exist at once, over the global batch."""

    def __post_init__(self) -> None:
        """The options must go together."""
        if self.distillation != "none":
            self.objective()

    def objective(self) -> Objective:
        """The distillation loss, where there is one."""
        fields = [field.name for field in dataclasses.fields(Objective) if field.name != "loss"]
        options = {name: getattr(self, name) for name in fields}
        return Objective(loss=cast(LossName, self.distillation), **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig(_Section):
    """One source of texts or conversations."""

    kind: SourceKind
    path: str | None = None
    """Glob of files for `text`, `jsonl` and `parquet`; name or directory of a data set for `hf`."""
    format: Format = "text"
    """What a record is, for `jsonl`, `parquet` and `hf`: a `field` with text; a `prompt` and its
    `completion`, of which only the latter is learnt; or `messages`."""
    field: str = "text"
    """Field that holds the text."""
    name: str | None = None
    """Configuration of the data set, for `hf`."""
    split: str = "train"
    """Of the data set, for `hf`."""
    size: Positive = 1000
    """Problems to generate, for `gsm_symbolic`."""
    seed: int = 0
    """Of the generator, for `gsm_symbolic`."""
    max_bytes: Positive = 600
    """Longest passage, for `python_docs`."""
    part: Part = "all"
    """`heldout` is every 20th record, `train` the others."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Share of the rows that are drawn from this source, in proportion to the others' weights; all
    sources of a mixture have one or none has, and then every row comes once an epoch."""

    def __post_init__(self) -> None:
        """A file source needs a path, and a generator cannot use one."""
        if (self.kind in ("text", "jsonl", "parquet", "hf")) != (self.path is not None):
            need = "must be given" if self.path is None else "must not be given"
            raise ValueError(f"`path` {need} for a source of kind {self.kind}")
        if self.format != "text" and self.kind not in ("jsonl", "parquet", "hf"):
            raise ValueError(f"`format` must be text for a source of kind {self.kind}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(_Section):
    """What is trained on, and in which shape."""

    train: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    batch_size: Positive = 8
    """Rows of a batch, over all devices; documents are packed into rows."""
    student_length: Annotated[int, Field(ge=2)] = 1024
    """Student tokens a row."""
    teacher_length: Annotated[int, Field(ge=2)] = 1024
    """Teacher tokens a row."""
    prepared: str | None = None
    """Directory that `xtoken prepare` fills and training then reads; None tokenises, aligns and
    packs in memory when the run starts."""
    loss_roles: Annotated[
        tuple[Literal["system", "user", "assistant", "tool"], ...], Field(min_length=1)
    ] = ("assistant",)
    """Whose messages of a conversation are learnt."""
    chat_templates: dict[str, str] = dataclasses.field(default_factory=dict)
    """File with the chat template of a side, `student` or the teacher's name, where its
    tokenizer's own is not wanted or there is none."""
    chat_template_kwargs: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Arguments of a side's chat template, such as `enable_thinking`, by side."""
    on_error: OnError = "error"
    """What a bad record does: stop, or be skipped and counted."""
    max_error_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """With `skip`: stop when more than this share of the records is bad."""

    def __post_init__(self) -> None:
        """Weights are of all sources or of none."""
        weighted = [source.weight is not None for source in self.train]
        if any(weighted) and not all(weighted):
            raise ValueError("`weight` must be given for all sources of `train` or for none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig(_Section):
    """AdamW with linear warm-up and cosine decay."""

    steps: Positive = 1000
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """At the last step, as a fraction of `learning_rate`."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    b1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    b2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest global gradient norm."""
    max_skipped_steps: Annotated[int, Field(ge=0)] = 0
    """Steps of a run that may have a loss or gradient that is not finite: they change nothing."""

    def __post_init__(self) -> None:
        """The warm-up must end before the run does."""
        if self.warmup_steps >= self.steps:
            raise ValueError(
                f"`warmup_steps` must be below `steps` ({self.steps}), got {self.warmup_steps}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig(_Section):
    """Devices along each axis."""

    data: Positive = 1
    fsdp: Positive = 1
    tensor: Positive = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig(_Section):
    """When the state is saved; the last step always is."""

    every_steps: Positive = 500
    keep: Positive = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig(_Section):
    """Held-out texts, read before the first step and after the last; none skips both."""

    sources: tuple[SourceConfig, ...] = ()
    max_documents: Positive = 64
    """Of each source, its first ones."""
    batch_size: Positive = 8
    length: Annotated[int, Field(ge=2)] = 1024
    """Tokens of a text that are read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig(_Section):
    """A distillation run."""

    run_dir: str
    """Directory of the run: checkpoints, metrics, figures, and the exported student."""
    teacher: TeacherConfig
    student: StudentConfig
    data: DataConfig
    projection: ProjectionConfig = ProjectionConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    mesh: MeshConfig = MeshConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = 0
    """Of the order of the data."""

    def __post_init__(self) -> None:
        """The batch must split over the mesh, and only P-KL teaches W."""
        if self.projection.learned and self.loss.distillation != "p_kl":
            raise ValueError(
                f"`projection.learned` needs `loss.distillation` p_kl, got {self.loss.distillation}"
            )
        shards = self.mesh.data * self.mesh.fsdp
        for name, section in (("data", self.data), ("evaluation", self.evaluation)):
            if section.batch_size % shards:
                raise ValueError(
                    f"`{name}.batch_size` must be a multiple of mesh.data x mesh.fsdp "
                    f"({shards}), got {section.batch_size}"
                )


# What may differ between a checkpoint and the run that resumes it: none of it changes the losses.
# Of `optim.max_skipped_steps` the checkpoint holds how many were skipped.
_FREE_ON_RESUME = ("run_dir", "mesh", "checkpoint", "evaluation", "optim.max_skipped_steps")


def load_config(path: str | Path) -> ExperimentConfig:
    """Read and check a YAML config.

    Raises:
        UsageError: the file is missing, not YAML, or has an unknown key or a bad value; one line
            for each, with the field, what is allowed and what was found.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"config {path} does not exist") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        summary = " ".join(str(error).split())
        raise UsageError(f"config {path} must be a YAML file, got: {summary}") from error
    if not isinstance(content, dict):
        raise UsageError(f"config {path} must be a mapping of fields, got {content!r:.60}")
    return check_config(content, name=str(path))


def check_config(content: Mapping[str, Any], *, name: str) -> ExperimentConfig:
    """Check parsed YAML; raises as `load_config` does."""
    try:
        adapter = pydantic.TypeAdapter(ExperimentConfig)
        return adapter.validate_python(dict(content))
    except pydantic.ValidationError as error:
        problems = [_problem(detail) for detail in error.errors() if not _follows(detail)]
        raise UsageError(f"{name}: {'; '.join(problems)}") from error


def _follows(detail: Any) -> bool:
    """Pydantic counts only the good items of a list: a bad one also makes it too short."""
    return detail["type"] == "too_short" and len(detail["input"]) > 0


def _problem(detail: Any) -> str:
    field = ".".join(map(str, detail["loc"])) or "config"
    if detail["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"`{field}` is not a field; there are {', '.join(_fields_beside(detail['loc']))}"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if detail["type"] in ("value_error", "missing_argument", "missing"):
        return f"`{field}`: {message}"
    return f"`{field}`: {message}, got {detail['input']!r:.80}"


def _fields_beside(location: Sequence[int | str]) -> list[str]:
    """Names of the fields of the section that a key is in."""
    section: Any = ExperimentConfig
    for name in location[:-1]:
        if isinstance(name, str):
            section = get_type_hints(section)[name]
        while not dataclasses.is_dataclass(section):  # a tuple of sections
            section = get_args(section)[0]
    return [field.name for field in dataclasses.fields(section)]


def to_dict(config: ExperimentConfig) -> dict[str, Any]:
    """The config as plain values, every default written out."""
    return cast(
        dict[str, Any], pydantic.TypeAdapter(ExperimentConfig).dump_python(config, mode="json")
    )


def differences(saved: Mapping[str, Any], config: ExperimentConfig) -> list[str]:
    """What stands between a checkpoint's config and this one, as `field: saved -> now` lines."""
    before, now = _flat(saved), _flat(to_dict(config))
    return [
        f"{field}: {before.get(field)} -> {now.get(field)}"
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field) and not _is_free(field)
    ]


def _is_free(field: str) -> bool:
    return any(field == free or field.startswith(f"{free}.") for free in _FREE_ON_RESUME)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
