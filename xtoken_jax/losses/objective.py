"""Which distillation loss, with which options."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from jaxtyping import Array, Int

from xtoken_jax.losses.chain_walk import Tries
from xtoken_jax.losses.columns import Unreachable
from xtoken_jax.losses.projected_kl import ChunkMerge
from xtoken_jax.ops import DeviceProjection
from xtoken_jax.ops.common_set import DeviceCommonSet

LossName = Literal["p_kl", "h_kl", "gold", "uld", "c_kl"]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A distillation loss; static under jit.

    Attributes:
        loss: `p_kl`; `h_kl` and `gold`, which are one loss on two common sets; `uld`; `c_kl`.
        chunk_merge: `"chain_rule"` counts all tokens of a chunk, `"first"` only the first,
            `"mean"` averages over the chunk's positions as the reference implementation does.
            Not of `c_kl`, which has a term for each token of a chunk.
        temperature: Divides the logits; the loss is scaled by its square.
        reverse: KL from the student to the teacher. ULD, a distance, has no direction.
        unreachable: P-KL: what to do with teacher tokens that W cannot reach.
        top_k: P-KL: compare only on the batch's teacher tokens of largest logit, so many.
        uncommon_top_k: GOLD and H-KL: sort only so many of each uncommon remainder.
        max_chunk_tokens: With `"mean"`: longer chunks, on either side, do not count.

    Raises:
        ValueError: an option is out of range, or does not go with the loss.
    """

    loss: LossName = "p_kl"
    chunk_merge: ChunkMerge = "chain_rule"
    temperature: float = 1.0
    reverse: bool = False
    unreachable: Unreachable = "mask"
    top_k: int | None = None
    uncommon_top_k: int | None = None
    max_chunk_tokens: int = 16

    def __post_init__(self) -> None:
        for name, choices in (
            ("loss", LossName),
            ("chunk_merge", ChunkMerge),
            ("unreachable", Unreachable),
        ):
            if (value := getattr(self, name)) not in get_args(choices):
                raise ValueError(f"`{name}` must be one of {get_args(choices)}, got {value!r}")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"`temperature` must be positive, got {self.temperature}")
        for name in ("top_k", "uncommon_top_k", "max_chunk_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")
        self._refuse("top_k", None, "p_kl")
        self._refuse("unreachable", "mask", "p_kl")
        self._refuse("uncommon_top_k", None, "gold", "h_kl")
        self._refuse("reverse", False, "p_kl", "gold", "h_kl", "c_kl")
        self._refuse("chunk_merge", "chain_rule", "p_kl", "gold", "h_kl", "uld")

    def _refuse(self, name: str, unset: Any, *losses: LossName) -> None:
        value = getattr(self, name)
        if value != unset and self.loss not in losses:
            raise ValueError(f"`{name}` is of {', '.join(losses)}, got {value} for {self.loss}")


class Tables(NamedTuple):
    """What a loss needs of the two vocabularies, on the device.

    Attributes:
        projection: W; every loss reads the vocabularies' sizes off it.
        common: The pairs of GOLD or H-KL.
        fold_ids_U: For `unreachable="fold"`, from `projection.fold_targets`.
        tries: Both vocabularies by the pieces of the other, for `c_kl`.
    """

    projection: DeviceProjection
    common: DeviceCommonSet | None = None
    fold_ids_U: Int[Array, " U"] | None = None
    tries: Tries | None = None


def check_tables(objective: Objective, tables: Tables) -> None:
    """Raise a ValueError that names what is missing or does not fit, before anything compiles."""
    if (objective.loss in ("gold", "h_kl")) != (tables.common is not None):
        need = "need" if tables.common is None else "alone take"
        raise ValueError(f"gold and h_kl {need} `tables.common`, got loss {objective.loss}")
    if (objective.loss == "c_kl") != (tables.tries is not None):
        need = "needs" if tables.tries is None else "alone takes"
        raise ValueError(f"c_kl {need} `tables.tries`, got loss {objective.loss}")
    if (objective.unreachable == "fold") != (tables.fold_ids_U is not None):
        raise ValueError(
            "`tables.fold_ids_U` must be given with `unreachable` fold and only then, "
            f"got unreachable {objective.unreachable}"
        )
    num_tokens = tables.projection.num_teacher_tokens
    if objective.top_k is not None and objective.top_k > num_tokens:
        raise ValueError(
            f"`top_k` must be at most the teacher's {num_tokens} tokens, got {objective.top_k}"
        )
