"""Which teacher tokens P-KL compares on, and both sides' probabilities there."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.ops import DeviceProjection, project

Unreachable = Literal["mask", "keep", "fold"]

# Below the smallest float32 that a product with W can keep; keeps the logarithm finite where the
# student's probability underflows, far under any probability that matters.
FLOOR = 1e-30

# What the reference implementation adds to a projected probability before its logarithm.
KEPT = 1e-10


class Columns(NamedTuple):
    """Which teacher tokens P-KL compares on, and what becomes of the others.

    Attributes:
        used_U: True for the columns in use; both sides are normalised within the teacher's.
        fold_ids_U: For each column the one that gets its mass, -1 for none; None folds nothing.
        floor: Added to the student's projected probability; 0 to keep it as it is.
        renormalise: Whether the student is normalised within the columns as well.
    """

    used_U: Bool[Array, " U"]
    fold_ids_U: Int[Array, " U"] | None = None
    floor: float = 0.0
    renormalise: bool = False


def columns_in_use(
    projection: DeviceProjection,
    *,
    unreachable: Unreachable = "mask",
    fold_ids_U: Int[Array, " U"] | None = None,
    top_U: Bool[Array, " U"] | None = None,
) -> Columns:
    """The columns of a P-KL.

    Args:
        projection: W.
        unreachable: What to do with teacher tokens that W cannot reach: `"mask"` drops them and
            renormalises the teacher; `"keep"` compares on them too, the student's probability
            there being 1e-10, as the reference implementation does; `"fold"` moves their mass to
            the columns that `fold_ids_U` names, and drops what it names none for.
        fold_ids_U: From `projection.fold_targets`, for `"fold"`.
        top_U: Columns to restrict both sides to, renormalised within.

    Raises:
        ValueError: `unreachable` is none of these, or `fold_ids_U` is missing for `"fold"` or given
            without it.
    """
    if unreachable not in get_args(Unreachable):
        raise ValueError(f"`unreachable` must be one of {get_args(Unreachable)}, got {unreachable}")
    if (fold_ids_U is not None) != (unreachable == "fold"):
        need = "must be given" if fold_ids_U is None else "must not be given"
        raise ValueError(f"`fold_ids_U` {need} where `unreachable` is {unreachable!r}")
    used_U = projection.reachable_U
    if unreachable == "keep":
        used_U = jnp.arange(used_U.shape[0]) < projection.num_teacher_tokens
    if top_U is not None:
        used_U = used_U & top_U
    floor = KEPT if unreachable == "keep" else 0.0
    return Columns(used_U, fold_ids_U, floor, renormalise=top_U is not None)


def projected_within(
    probs_VN: Float[Array, "V N"], projection: DeviceProjection, columns: Columns
) -> tuple[Float[Array, "U N"], Float[Array, "U N"]]:
    """The student carried to the columns in use: probabilities, and their finite logarithms."""
    z_UN = project(probs_VN, projection)
    if columns.renormalise:
        z_UN = jnp.where(columns.used_U[:, None], z_UN, 0.0)
        z_UN = z_UN / jnp.maximum(z_UN.sum(axis=0), FLOOR)[None, :]
    return z_UN, jnp.log(z_UN + columns.floor if columns.floor else jnp.maximum(z_UN, FLOOR))


def teacher_within(
    teacher_logits_UN: Float[Array, "U N"], projection: DeviceProjection, columns: Columns
) -> tuple[Float[Array, "U N"], Float[Array, " N"]]:
    """The teacher's log-probabilities within the columns in use; its mass that W cannot reach."""
    logits_UN = teacher_logits_UN.astype(jnp.float32)
    is_token_U1 = jnp.arange(logits_UN.shape[0])[:, None] < projection.num_teacher_tokens
    reachable_U1 = projection.reachable_U[:, None]
    reached_UN = jnp.where(reachable_U1, logits_UN, -jnp.inf)
    lost_UN = jnp.where(is_token_U1 & ~reachable_U1, logits_UN, -jnp.inf)
    log_reached_N = _finite(jax.nn.logsumexp(reached_UN, axis=0))
    unreachable_N = jax.nn.sigmoid(jax.nn.logsumexp(lost_UN, axis=0) - log_reached_N)
    if columns.fold_ids_U is not None:
        reached_UN = _folded(jnp.where(is_token_U1, logits_UN, -jnp.inf), columns.fold_ids_U)
    elif columns.floor:
        reached_UN = logits_UN
    if columns.fold_ids_U is not None or columns.floor or columns.renormalise:
        reached_UN = jnp.where(columns.used_U[:, None], reached_UN, -jnp.inf)
        log_reached_N = _finite(jax.nn.logsumexp(reached_UN, axis=0))
    return reached_UN - log_reached_N[None, :], unreachable_N


def _finite(log_total_N):
    """Where the teacher allows nothing that is compared, q is 0 and not NaN."""
    return jnp.maximum(log_total_N, jnp.finfo(jnp.float32).min)


def _folded(logits_UN, fold_ids_U):
    """Logits after each column's mass has moved to where it is folded; -1 moves it nowhere."""
    largest_N = _finite(logits_UN.max(axis=0))
    mass_UN = jnp.exp(logits_UN - largest_N[None, :])
    moved_UN = (
        jnp.zeros_like(mass_UN)
        .at[fold_ids_U]
        .add(jnp.where(fold_ids_U[:, None] >= 0, mass_UN, 0.0), mode="drop")
    )
    return jnp.log(moved_UN) + largest_N[None, :]


def top_columns(
    largest_logits_U: Float[Array, " U"], projection: DeviceProjection, *, top_k: int
) -> Bool[Array, " U"]:
    """The `top_k` teacher tokens of largest logit anywhere in a batch.

    Args:
        largest_logits_U: Of each column, over all positions that are compared.
        projection: W.
        top_k: How many, at most the teacher's tokens.

    Raises:
        ValueError: `top_k` is out of range.
    """
    num_tokens = projection.num_teacher_tokens
    if not 1 <= top_k <= num_tokens:
        raise ValueError(f"`top_k` must be in [1, {num_tokens}], got {top_k}")
    is_token_U = jnp.arange(largest_logits_U.shape[0]) < num_tokens
    _, ids_K = jax.lax.top_k(jnp.where(is_token_U, largest_logits_U, -jnp.inf), top_k)
    return jnp.zeros(is_token_U.shape, bool).at[ids_K].set(True)
