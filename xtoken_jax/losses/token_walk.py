"""Log-probabilities of next tokens, and how a gradient of logits reaches what made them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.losses.model_output import ModelOutput
from xtoken_jax.ops import pick
from xtoken_jax.ops.visits import visit_blocks


class _Plan(NamedTuple):
    """What is known before compilation."""

    num_tokens: int
    temperature: float
    block_tokens: int


def next_token_log_probs(
    model: ModelOutput,
    *,
    num_tokens: int,
    temperature: float = 1.0,
    block_tokens: int = 256,
    mask_BS: Bool[Array, "B S"] | None = None,
) -> Float[Array, "B S"]:
    """At each position the log-probability of the token after it, in nats, block by block.

    The last position of a row has no next token: its value means nothing.

    Args:
        model: Hidden states, unembedding and tokens.
        num_tokens: Of the tokenizer; rows of the unembedding past it get no probability.
        temperature: Divides the logits.
        block_tokens: Positions a block, over the whole batch.
        mask_BS: Positions wanted, all by default; others return exactly 0, and blocks without
            one are not computed.
    """
    plan = _Plan(num_tokens, temperature, block_tokens)
    if mask_BS is None:
        mask_BS = jnp.ones(model.ids_BS.shape, bool)
    next_ids_BS = jnp.roll(model.ids_BS, -1, axis=1)
    return _log_probs(plan, model.hidden_BSD, model.unembedding_VD, next_ids_BS, mask_BS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _log_probs(plan, hidden_BSD, unembedding_VD, next_ids_BS, mask_BS):
    return _log_probs_forward(plan, hidden_BSD, unembedding_VD, next_ids_BS, mask_BS)[0]


def _log_probs_forward(plan, hidden_BSD, unembedding_VD, next_ids_BS, mask_BS):
    model = ModelOutput(hidden_BSD, unembedding_VD, next_ids_BS)

    def block(nothing, arrays):
        hidden_ND, next_ids_N = arrays
        logits_VN = token_logits(model, hidden_ND, plan.num_tokens) / plan.temperature
        total_N = log_total(logits_VN)
        return nothing, (pick(logits_VN, next_ids_N) - total_N, total_N)

    _, (log_probs_BS, totals_BS) = visit_blocks(
        block, (), (hidden_BSD, next_ids_BS), mask_BS, block_tokens=plan.block_tokens
    )
    kept = (hidden_BSD, unembedding_VD, next_ids_BS, mask_BS, totals_BS)
    return log_probs_BS, kept


def _log_probs_backward(plan, kept, up_BS):
    hidden_BSD, unembedding_VD, next_ids_BS, mask_BS, totals_BS = kept
    model = ModelOutput(hidden_BSD, unembedding_VD, next_ids_BS)

    def block(up_VD, arrays):
        hidden_ND, next_ids_N, total_N, up_N = arrays
        logits_VN = token_logits(model, hidden_ND, plan.num_tokens) / plan.temperature
        up_VN = -up_N[None, :] * jnp.exp(logits_VN - total_N[None, :])
        up_VN = at_tokens(up_VN, next_ids_N, up_N) / plan.temperature
        return gradient_of_logits(model, hidden_ND, up_VN, up_VD)

    arrays_BS = (hidden_BSD, next_ids_BS, totals_BS, jnp.where(mask_BS, up_BS, 0.0))
    up_VD, up_BSD = visit_blocks(
        block, empty_gradient(model), arrays_BS, mask_BS, block_tokens=plan.block_tokens
    )
    return up_BSD, rounded_to(up_VD, unembedding_VD), None, None


_log_probs.defvjp(_log_probs_forward, _log_probs_backward)


def token_logits(model: ModelOutput, hidden_ND: Float[Array, "N D"], num_tokens: int):
    """Logits `[V, N]` in float32; `-inf` on rows past the tokenizer."""
    logits_VN = model.logits(hidden_ND)
    if num_tokens == logits_VN.shape[0]:
        return logits_VN
    return jnp.where(jnp.arange(logits_VN.shape[0])[:, None] < num_tokens, logits_VN, -jnp.inf)


def log_total(logits_VN: Float[Array, "V N"]) -> Float[Array, " N"]:
    """Logarithm of the sum of the exponentials, with no array of the logits' size in between."""
    largest_N = logits_VN.max(axis=0)
    return largest_N + jnp.log(jnp.exp(logits_VN - largest_N[None, :]).sum(axis=0))


def at_tokens(
    values_VN: Float[Array, "V N"], ids_N: Int[Array, " N"], add_N: Float[Array, " N"]
) -> Float[Array, "V N"]:
    """`values_VN` with something added to the entry of each column that `ids_N` names."""
    return values_VN.at[jnp.maximum(ids_N, 0), jnp.arange(len(ids_N))].add(
        add_N, unique_indices=True
    )


def empty_gradient(model: ModelOutput) -> Float[Array, "V D"] | None:
    """What the gradient of an unembedding is added up in, float32; None where there is none."""
    if model.unembedding_VD is None:
        return None
    return jnp.zeros_like(model.unembedding_VD, jnp.float32)


def gradient_of_logits(
    model: ModelOutput,
    hidden_ND: Float[Array, "N D"],
    up_VN: Float[Array, "V N"],
    up_VD: Float[Array, "V D"] | None,
) -> tuple[Float[Array, "V D"] | None, Float[Array, "N D"]]:
    """Carry a gradient of a block's logits on to the unembedding and the hidden states.

    Returns:
        `up_VD` with the block's part added, and the gradient of `hidden_ND`.
    """
    if model.unembedding_VD is None or up_VD is None:
        return None, up_VN.T.astype(hidden_ND.dtype)
    up_VN = up_VN.astype(model.unembedding_VD.dtype)
    of_rows_VD = jnp.einsum("VN,ND->VD", up_VN, hidden_ND, preferred_element_type=jnp.float32)
    # Transposed first: on two CPU cores faster than to contract both first axes.
    up_ND = jnp.matmul(up_VN.T, model.unembedding_VD, preferred_element_type=jnp.float32)
    return up_VD + of_rows_VD, up_ND.astype(hidden_ND.dtype)


def rounded_to(gradient: Array | None, like: Array | None) -> Array | None:
    """A gradient in the type of what it is of."""
    return None if gradient is None or like is None else gradient.astype(like.dtype)
