"""Losses of whole chunk measures from hidden states: one walk makes the loss and its gradient."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from xtoken_jax.losses.model_output import ModelOutput
from xtoken_jax.losses.token_walk import empty_gradient, gradient_of_logits, rounded_to
from xtoken_jax.losses.walks import at_chunks
from xtoken_jax.ops import Spans, teacher_predictors
from xtoken_jax.ops.visits import visit_blocks


class _Plan(NamedTuple):
    """What is known before compilation."""

    function: Callable[..., Float[Array, " N"]]
    tables: Any  # the structure of the pytree whose leaves are in `_Held`
    block_tokens: int


class _Held(NamedTuple):
    """What gets no gradient: the teacher, the positions wanted, and tables."""

    teacher_hidden_BSE: Float[Array, "B S E"]
    teacher_unembedding_UE: Float[Array, "U E"] | None
    teacher_rest_BS: Float[Array, "B S"]
    mask_BS: Bool[Array, "B S"]
    tables: list[Array]


def walk_measures(
    function: Callable[..., Float[Array, " N"]],
    student: ModelOutput,
    teacher: ModelOutput,
    spans: Spans,
    tables: Any,
    rests_BN: tuple[Float[Array, "B N"], Float[Array, "B N"]],
    *,
    block_tokens: int,
) -> tuple[Float[Array, "B N"], Float[Array, ""]]:
    """A loss of every scored chunk, whose sum has a gradient.

    The gradient of the sum is made in the walk that computes the losses, so that what is sorted is
    sorted once.

    Args:
        function: `(tables, logits_VN, teacher_logits_UN, student_rest_N, teacher_rest_N)` to a loss
            for each position.
        student: With gradient.
        teacher: Held constant.
        spans: Chunks of the batch.
        tables: Pytree of arrays, held constant.
        rests_BN: Log-probability of what follows the first token of each chunk, the student's
            with gradient.
        block_tokens: Chunks a block, over the whole batch.

    Returns:
        Losses without gradient, and 0 with the gradient of their sum.
    """
    teacher_at_BS = teacher_predictors(spans)
    next_chunk_BS = jnp.maximum(jnp.roll(spans.student_chunk_BS, -1, axis=1), 0)
    rests_BS = [jnp.take_along_axis(rest_BN, next_chunk_BS, axis=1) for rest_BN in rests_BN]
    leaves, structure = jax.tree.flatten(tables)
    held = _Held(
        jnp.take_along_axis(teacher.hidden_BSD, jnp.maximum(teacher_at_BS, 0)[:, :, None], axis=1),
        teacher.unembedding_VD,
        rests_BS[1],
        teacher_at_BS >= 0,
        leaves,
    )
    losses: Any = _losses(
        _Plan(function, structure, block_tokens),
        student.hidden_BSD,
        student.unembedding_VD,
        rests_BS[0],
        held,
    )
    loss_BS, total = losses
    loss_BN = jax.lax.stop_gradient(at_chunks(loss_BS, spans))
    return loss_BN, total - jax.lax.stop_gradient(total)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(plan: _Plan, hidden_BSD, unembedding_VD, rest_BS, held: _Held):
    """The losses of the positions, and their sum, which alone has a gradient."""

    def block(nothing, arrays):
        hidden_ND, rest_N, *teacher_and_mask = arrays
        logits_VN = ModelOutput(hidden_BSD, unembedding_VD, held.mask_BS).logits(hidden_ND)
        return nothing, _loss(plan, held, *teacher_and_mask)(logits_VN, rest_N)

    _, loss_BS = visit_blocks(
        block,
        (),
        (hidden_BSD, rest_BS, *held[0:1], *held[2:4]),
        held.mask_BS,
        block_tokens=plan.block_tokens,
    )
    return loss_BS, loss_BS.sum()


def _losses_forward(plan, hidden_BSD, unembedding_VD, rest_BS, held):
    model = ModelOutput(hidden_BSD, unembedding_VD, held.mask_BS)

    def block(up_VD, arrays):
        hidden_ND, rest_N, *teacher_and_mask = arrays
        function = _loss(plan, held, *teacher_and_mask)
        loss_N, pull = jax.vjp(function, model.logits(hidden_ND), rest_N)
        up_VN, up_rest_N = pull(jnp.ones_like(loss_N))
        up_VD, up_ND = gradient_of_logits(model, hidden_ND, up_VN, up_VD)
        return up_VD, (loss_N, up_ND, up_rest_N)

    up_VD, (loss_BS, up_BSD, up_rest_BS) = visit_blocks(
        block,
        empty_gradient(model),
        (hidden_BSD, rest_BS, *held[0:1], *held[2:4]),
        held.mask_BS,
        block_tokens=plan.block_tokens,
    )
    kept = up_BSD, rounded_to(up_VD, unembedding_VD), up_rest_BS
    return (loss_BS, loss_BS.sum()), kept


def _losses_backward(plan, kept, ups):
    del plan
    return *(None if up is None else (ups[1] * up).astype(up.dtype) for up in kept), None


_losses.defvjp(_losses_forward, _losses_backward)


def _loss(plan, held, teacher_hidden_NE, teacher_rest_N, is_wanted_N):
    """The loss as a function of what gets a gradient; 0 at positions that are not wanted."""
    teacher = ModelOutput(held.teacher_hidden_BSE, held.teacher_unembedding_UE, held.mask_BS)
    teacher_logits_UN = teacher.logits(teacher_hidden_NE)
    tables = jax.tree.unflatten(plan.tables, held.tables)

    def function(logits_VN, rest_N):
        loss_N = plan.function(tables, logits_VN, teacher_logits_UN, rest_N, teacher_rest_N)
        return jnp.where(is_wanted_N, loss_N, 0.0)

    return function
