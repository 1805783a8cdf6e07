"""The L1 distance between two lists in descending order: GOLD's uncommon part, and ULD.

Sorting is what these losses cost. XLA's sort on a CPU compares one pair at a time and is an order
of magnitude slower than NumPy's vectorised one, so where a process has a single CPU device the
columns are sorted on the host, in a callback. Its signs, one byte an entry, are what the gradient
needs: the backward pass sorts nothing.
"""

import functools
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Shorter = Literal["truncate", "pad"]

_HIGH = 1 if sys.byteorder == "little" else 0  # the half of a 64-bit integer that orders first


class _Plan(NamedTuple):
    """What is known before compilation.

    Attributes:
        ranks: How many of the largest entries of each side count: a pair.
        on_host: Sort in a callback where the platform is a CPU.
    """

    ranks: tuple[int, int]
    on_host: bool


def sorted_l1(
    p_RN: Float[Array, "R N"],
    q_QN: Float[Array, "Q N"],
    *,
    shorter: Shorter,
    top_k: int | None = None,
    on_host: bool | None = None,
) -> Float[Array, " N"]:
    r"""L1 between columns in descending order, exact.

    .. math:: \sum_k |p_{(k)} - q_{(k)}|

    The gradient reaches an entry by the sign of its term, 0 where both are equal. Entries of equal
    size take their ranks in the order of their rows.

    Args:
        p_RN: Not negative, such as probabilities.
        q_QN: Likewise.
        shorter: `"truncate"` compares the first `min(R, Q)` ranks, `"pad"` all of them with zeros
            below the shorter column.
        top_k: Only the largest `top_k` of each side count; all by default.
        on_host: Sort with NumPy where the platform is a CPU. By default if the process has one
            device: several would wait for one another, and for the host.

    Returns:
        In the unit of the inputs, shape [N], float32.

    Raises:
        ValueError: `top_k` is less than 1.
    """
    ranks = [p_RN.shape[0], q_QN.shape[0]]
    if top_k is not None:
        if top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, got {top_k}")
        ranks = [min(count, top_k) for count in ranks]
    if shorter == "truncate":
        ranks = [min(ranks)] * 2
    if max(ranks) == 0:
        return jnp.zeros(p_RN.shape[1], jnp.float32)
    on_host = jax.device_count() == 1 if on_host is None else on_host
    plan = _Plan((ranks[0], ranks[1]), on_host)
    return _l1(plan, p_RN.astype(jnp.float32), q_QN.astype(jnp.float32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _l1(plan, p_RN, q_QN):
    return _distance_and_signs(plan, (False, False), p_RN, q_QN)[0]


def _l1_forward(plan, p, q):
    # Only a side that is differentiated pays for the ranks of its entries.
    loss_N, *signs = _distance_and_signs(plan, (p.perturbed, q.perturbed), p.value, q.value)
    signs = iter(signs)
    return loss_N, tuple(next(signs) if side.perturbed else None for side in (p, q))


def _l1_backward(plan, signs, gradient_N):
    return tuple(None if sign is None else sign * gradient_N[None, :] for sign in signs)


_l1.defvjp(_l1_forward, _l1_backward, symbolic_zeros=True)


def _distance_and_signs(plan, wanted, p_RN, q_QN):
    """The loss, and for each side that wants it the int8 derivative of the loss."""
    rows = p_RN.T, q_QN.T
    on_device = functools.partial(_on_device, plan.ranks, wanted)
    if plan.on_host:
        on_host = functools.partial(_in_callback, plan.ranks, wanted)
        loss_N, *signs = jax.lax.platform_dependent(*rows, cpu=on_host, default=on_device)
    else:
        loss_N, *signs = on_device(*rows)
    return loss_N, *(sign.T for sign in signs)


def _on_device(ranks, wanted, p_NR, q_NQ):
    """By XLA's sort, which is a good one on accelerators, and divides over devices."""
    a_NK, p_order = _descending(p_NR, ranks[0], wanted[0])
    b_NK, q_order = _descending(q_NQ, ranks[1], wanted[1])
    most = max(ranks)
    a_NK = jnp.pad(a_NK, ((0, 0), (0, most - ranks[0])))
    b_NK = jnp.pad(b_NK, ((0, 0), (0, most - ranks[1])))
    sign_NK = jnp.sign(a_NK - b_NK).astype(jnp.int8)
    signs = [
        jnp.put_along_axis(
            jnp.zeros(side.shape, jnp.int8), order, sign[:, : order.shape[1]], 1, inplace=False
        )
        for side, order, sign in ((p_NR, p_order, sign_NK), (q_NQ, q_order, -sign_NK))
        if order is not None
    ]
    return jnp.abs(a_NK - b_NK).sum(axis=1), *signs


def _descending(x_NR, count, with_order):
    """The `count` largest of each row in descending order, and where they are."""
    if count < x_NR.shape[1]:
        values, order = jax.lax.top_k(x_NR, count)
        return values, order if with_order else None
    # Floats that are not negative order as their bits do, and whole numbers compare faster.
    keys = -jax.lax.bitcast_convert_type(x_NR, jnp.int32)
    order = None
    if with_order:
        index_NR = jax.lax.broadcasted_iota(jnp.int32, x_NR.shape, 1)
        keys, order = jax.lax.sort((keys, index_NR), dimension=1, num_keys=1)
    else:
        keys = jax.lax.sort(keys, dimension=1, is_stable=False)
    return jax.lax.bitcast_convert_type(-keys, jnp.float32), order


def _in_callback(ranks, wanted, p_NR, q_NQ):
    shapes = [jax.ShapeDtypeStruct(p_NR.shape[:1], jnp.float32)]
    for side, is_wanted in zip((p_NR, q_NQ), wanted, strict=True):
        if is_wanted:
            shapes.append(jax.ShapeDtypeStruct(side.shape, jnp.int8))
    function = functools.partial(_on_host, ranks, wanted)
    return jax.pure_callback(function, tuple(shapes), p_NR, q_NQ, vmap_method="sequential")


def _on_host(ranks, wanted, p_NR, q_NQ):
    """The same, row by row, by NumPy's sort."""
    p_NR, q_NQ = np.asarray(p_NR), np.asarray(q_NQ)
    loss_N = np.empty(len(p_NR), np.float32)
    p_signs_NR = np.zeros(p_NR.shape if wanted[0] else (0, 0), np.int8)
    q_signs_NQ = np.zeros(q_NQ.shape if wanted[1] else (0, 0), np.int8)
    most = max(ranks)

    def row(n):
        a_K, p_order = _descending_row(p_NR[n], ranks[0], wanted[0])
        b_K, q_order = _descending_row(q_NQ[n], ranks[1], wanted[1])
        a_K, b_K = np.pad(a_K, (0, most - ranks[0])), np.pad(b_K, (0, most - ranks[1]))
        loss_N[n] = np.abs(a_K - b_K).sum()
        sign_K = (a_K > b_K).view(np.int8) - (a_K < b_K).view(np.int8)
        if wanted[0]:
            p_signs_NR[n, p_order] = sign_K[: ranks[0]]
        if wanted[1]:
            q_signs_NQ[n, q_order] = -sign_K[: ranks[1]]

    with ThreadPoolExecutor() as pool:  # NumPy lets other threads run while it sorts
        list(pool.map(row, range(len(loss_N))))
    signs = (p_signs_NR, q_signs_NQ)
    return loss_N, *(sign for sign, is_wanted in zip(signs, wanted, strict=True) if is_wanted)


def _descending_row(x_R, count, with_order):
    """As `_descending`, of one row."""
    if not with_order:
        return -_smallest(-x_R, count), None
    # The vectorised sort of 64-bit keys that end in their index outruns an argsort.
    keys_R2 = np.empty((len(x_R), 2), np.int32)
    np.negative(x_R.view(np.int32), out=keys_R2[:, _HIGH])
    keys_R2[:, 1 - _HIGH] = np.arange(len(x_R), dtype=np.int32)
    keys_K2 = _smallest(keys_R2.view(np.int64)[:, 0], count).view(np.int32).reshape(count, 2)
    return (-keys_K2[:, _HIGH]).view(np.float32), keys_K2[:, 1 - _HIGH].astype(np.intp)


def _smallest(x_R, count):
    """The first `count` in ascending order; overwrites its argument."""
    if 0 < count < len(x_R):
        x_R.partition(count - 1)
    x_K = x_R[:count]
    x_K.sort()
    return x_K
