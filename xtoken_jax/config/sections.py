"""Every setting of an experiment, with its default: the only place that has any.

Values are checked here, against each other too, so that nothing below this layer meets a setting
that cannot work.
"""

import dataclasses
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal, cast, get_args

import pydantic
from pydantic import Field

from xtoken_jax.data import TODAY, Format, OnError, Part, SourceKind
from xtoken_jax.losses import ChunkMerge, LossName, Objective, Trust, Unreachable
from xtoken_jax.models.lora import Target
from xtoken_jax.projection import Canonicalization, LongPieces

Positive = Annotated[int, Field(gt=0)]
Dtype = Literal["float32", "bfloat16"]
# A name is part of the names of metrics and files.
TeacherName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Section:
    """A part of a config; a key that is not a field is an error."""

    __pydantic_config__ = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig(_Section):
    """Low-rank adapters: trained in the place of the student's matrices, merged on export."""

    rank: Annotated[int, Field(ge=0)] = 0
    """Of the adapters; 0 trains the whole student."""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """What an adapter computes counts `alpha / rank` times."""
    targets: Annotated[tuple[Target, ...], Field(min_length=1)] = get_args(Target)
    """Matrices of every layer that get one; all by default."""
    embeddings: bool = False
    """Train embedding and unembedding too, whole: a transplanted vocabulary needs it."""
    base_dtype: Dtype = "float32"
    """Of the matrices that are not trained, and of the exported student."""


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
    lora: LoraConfig = LoraConfig()


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
class DistillationConfig(_Section):
    """What a teacher's distributions are compared by."""

    kind: Literal[LossName, "none"] = "p_kl"
    """`none` reads the teacher's tokens, so that batches stay the same, and not the teacher."""
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

    def __post_init__(self) -> None:
        """The options must go together."""
        if self.kind != "none":
            self.objective()

    def objective(self) -> Objective:
        """The loss, where there is one."""
        fields = [field.name for field in dataclasses.fields(Objective) if field.name != "loss"]
        options = {name: getattr(self, name) for name in fields}
        return Objective(loss=cast(LossName, self.kind), **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig(_Section):
    """A frozen teacher, and what is learned from it."""

    model: str
    """Local directory, `asset:NAME` or hub id."""
    dtype: Dtype = "bfloat16"
    """Of its parameters and activations."""
    length: Annotated[int, Field(ge=2)] = 1024
    """Its tokens a row."""
    weight: Annotated[float, Field(ge=0)] = 1.0
    """Beside other teachers, with `loss.combine` `sum` or `mean_logits`."""
    loss: DistillationConfig = DistillationConfig()
    projection: ProjectionConfig = ProjectionConfig()

    def __post_init__(self) -> None:
        """Only P-KL teaches W."""
        if self.projection.learned and self.loss.kind != "p_kl":
            raise ValueError(f"`projection.learned` needs `loss.kind` p_kl, got {self.loss.kind}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig(_Section):
    """How the teachers' losses and cross-entropy add up."""

    scaling: Literal["dynamic", "fixed"] = "dynamic"
    """`dynamic` brings the distillation loss to the size of cross-entropy at every step."""
    distillation_weight: Annotated[float, Field(ge=0)] = 1.0
    """With `fixed` scaling."""
    cross_entropy_weight: Annotated[float, Field(ge=0)] = 1.0
    """With `fixed` scaling."""
    combine: Literal["sum", "trust", "select", "mean_logits"] = "sum"
    """Several teachers: by their weights; by how sure each is of the batch; the one of lowest
    cross-entropy; or as one teacher of averaged logits, where all have one tokenizer."""
    trust: Trust = "cross_entropy"
    """With `trust`: what tells how sure a teacher is."""
    trust_sharpness: Annotated[float, Field(gt=0)] = 1.0
    """With `trust`: multiplies the scores before their softmax."""
    scale_by_vocabulary: bool = False
    """With `sum` and `trust`: by the logarithm of each teacher's vocabulary."""
    block_tokens: Positive = 4096
    """Student positions whose logits exist at once, over all devices."""


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
    chat_date: date = TODAY
    """What a chat template that writes today's date is told, on whatever day it runs."""
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
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second moment."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest global gradient norm."""
    accumulation_steps: Positive = 1
    """Parts of a batch that are computed one after the other, to need less memory; the gradient is
    that of the whole batch."""
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
    max_questions: Annotated[int, Field(ge=0)] = 0
    """Of each source whose texts are word problems, as those of `gsm_symbolic`, so many are
    answered."""
    max_new_tokens: Positive = 256
    """Of an answer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedModel(_Section):
    """What `xtoken plan` takes a model to be, instead of fetching it."""

    config: dict[str, Any]
    """The content of its config.json."""
    tokenizer: str
    """Its tokenizer, or one of nearly its vocabulary: local directory, `asset:NAME` or hub id."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExperimentConfig(_Section):
    """A distillation run."""

    run_dir: str
    """Directory of the run: checkpoints, metrics, figures, and the exported student."""
    student: StudentConfig
    teachers: dict[TeacherName, TeacherConfig]
    """By names of your choice; none trains on cross-entropy alone."""
    data: DataConfig
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    mesh: MeshConfig = MeshConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    seed: int = 0
    """Of the order of the data."""
    planning: dict[str, PlannedModel] = dataclasses.field(default_factory=dict)
    """For `xtoken plan` alone: models by the names they have in `student` and `teachers`."""

    def __post_init__(self) -> None:
        """The batch must split over the mesh, and the teachers must go together."""
        _check_teachers(self.teaching, self.loss)
        shards = self.mesh.data * self.mesh.fsdp
        parts = self.optim.accumulation_steps
        for field, size, product, of in (
            ("data", self.data.batch_size, shards * parts, " x optim.accumulation_steps"),
            ("evaluation", self.evaluation.batch_size, shards, ""),
        ):
            if size % product:
                raise ValueError(
                    f"`{field}.batch_size` must be a multiple of mesh.data x mesh.fsdp{of} "
                    f"({product}), got {size}"
                )

    @property
    def teaching(self) -> dict[str, TeacherConfig]:
        """The teachers that something is learned from."""
        return {name: t for name, t in self.teachers.items() if t.loss.kind != "none"}

    @property
    def learned(self) -> dict[str, ProjectionConfig]:
        """Every W that is trained, by teacher."""
        return {n: t.projection for n, t in self.teachers.items() if t.projection.learned}


def _check_teachers(teaching: Mapping[str, TeacherConfig], loss: LossConfig) -> None:
    if teaching and not sum(teacher.weight for teacher in teaching.values()) > 0:
        raise ValueError("`teachers`: the weights must not sum to 0")
    if loss.combine != "mean_logits":
        return
    shared = [(t.loss, t.projection, t.length) for t in teaching.values()]
    if any(options != shared[0] for options in shared):
        raise ValueError(
            "`loss.combine` mean_logits needs teachers of one `loss`, `projection` and `length`"
        )
