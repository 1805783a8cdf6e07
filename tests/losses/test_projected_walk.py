"""The P-KL with gradients written out, against the one that is left to autodiff."""

import functools
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.losses.cases import CHUNKS, Case
from xtoken_jax.losses import Objective, Tables, distillation_sums, dynamic_scaling
from xtoken_jax.ops import to_device
from xtoken_jax.train.mesh import make_mesh


def with_exact_tokens(case):
    """Half of the student's tokens stand for one teacher token each, as most do in real pairs."""
    W = case.projection
    half = W.num_student_tokens // 2
    taken = np.arange(5, 5 + half) % (W.num_teacher_tokens - 2)
    W.ids_VK[half:] = np.where(W.ids_VK[half:] >= 0, W.ids_VK[half:] % 5, -1)
    for row in range(half, W.num_student_tokens):  # a row must not name a column twice
        _, first = np.unique(W.ids_VK[row], return_index=True)
        repeated = np.setdiff1d(np.arange(W.ids_VK.shape[1]), first)
        W.ids_VK[row, repeated], W.weights_VK[row, repeated] = -1, 0
        W.weights_VK[row] /= W.weights_VK[row].sum()
    W.ids_VK[:half], W.weights_VK[:half] = -1, 0
    W.ids_VK[:half, 0], W.weights_VK[:half, 0] = taken, 1
    W.ids_VK[half], W.weights_VK[half] = -1, 0  # and one carries nothing
    case.device_projection = to_device(
        W,
        student_vocab_size=case.student.unembedding_VD.shape[0],
        teacher_vocab_size=case.teacher.unembedding_VD.shape[0],
    )
    return case


def sums(case, hidden, unembedding, *, split, targets, merge="chain_rule", block_tokens=10):
    projection = case.device_projection
    return distillation_sums(
        case.student._replace(hidden_BSD=hidden, unembedding_VD=unembedding),
        case.teacher,
        case.spans,
        Tables(projection if split else replace(projection, split=None)),
        case.target_mask_BS if targets else None,
        Objective(chunk_merge=merge),
        block_tokens=block_tokens,
    )


def total(case, hidden, unembedding, **options):
    """Depends on both losses, by factors that come out of them."""
    result = sums(case, hidden, unembedding, **options)
    if not options["targets"]:
        return jnp.sqrt(result.distillation), result
    return dynamic_scaling(0.7 * result.distillation, 0.2 * result.cross_entropy), result


def value_and_gradient(case, inputs, **options):
    function = functools.partial(total, case, **options)
    return jax.jit(jax.value_and_grad(function, argnums=(0, 1), has_aux=True))(*inputs)


@pytest.mark.parametrize("targets", [True, False])
@pytest.mark.parametrize("merge", ["chain_rule", "first"])
def test_equals_the_walk_that_autodiff_differentiates(merge, targets):
    case = with_exact_tokens(Case(seed=41, rows=[CHUNKS, CHUNKS[1:4]]))
    assert 10 < case.device_projection.split.is_exact_V.sum() < 25
    assert len(case.device_projection.split.empty_row_M) == 1 + 3  # three are padding
    results = [
        value_and_gradient(case, case.student[:2], split=split, targets=targets, merge=merge)
        for split in (True, False)
    ]
    chex.assert_trees_all_close(*results, rtol=1e-5, atol=1e-6)
    assert np.asarray(results[0][1][0]).any()


@pytest.mark.parametrize("targets", [True, False])
def test_given_logits_may_be_infinite(targets):
    case = with_exact_tokens(Case(seed=42))
    logits, teacher_logits = (
        (output.hidden_BSD @ output.unembedding_VD.T) for output in (case.student, case.teacher)
    )
    reached = np.flatnonzero(case.device_projection.reachable_U)
    case.teacher = case.teacher._replace(
        hidden_BSD=teacher_logits.at[0, 2, reached].set(-jnp.inf).at[1, :, 3].set(-jnp.inf),
        unembedding_VD=None,
    )
    ids = np.unique(case.student.ids_BS)
    unread = np.setdiff1d(np.arange(20), ids)[:2]
    logits = logits.at[:, :, unread].set(-jnp.inf)
    results = [
        value_and_gradient(case, (logits, None), split=split, targets=targets)
        for split in (True, False)
    ]
    chex.assert_tree_all_finite(results[0])
    (value, gradient), (plain, _) = results
    chex.assert_trees_all_close(value, plain, rtol=1e-5)
    # Here a floored logarithm still pulls its token up, so that gradients cannot be compared. But
    # no loss depends on a number added to all logits of a position.
    np.testing.assert_allclose(gradient[0].sum(axis=-1), 0, atol=1e-5)
    assert np.asarray(gradient[0]).any()


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 1, 8)], ids=str)
def test_every_mesh_equals_one_device_without_targets(shape):
    case = with_exact_tokens(Case(seed=43, B=8, V=45, U=30, D=6, E=4))
    options = {"split": True, "targets": False, "block_tokens": 32}
    value, gradient = value_and_gradient(case, case.student[:2], **options)
    mesh = make_mesh(data=shape[0], fsdp=shape[1], tensor=shape[2])
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    vocabulary = NamedSharding(mesh, PartitionSpec("tensor"))
    case.teacher = case.teacher._replace(
        hidden_BSD=jax.device_put(case.teacher.hidden_BSD, rows),
        unembedding_VD=jax.device_put(case.teacher.unembedding_VD, vocabulary),
    )
    case.spans = jax.device_put(case.spans, rows)
    with jax.set_mesh(mesh):
        placed = jax.device_put(case.student[:2], (rows, vocabulary))
        sharded = value_and_gradient(case, placed, **options)
    chex.assert_trees_all_close(sharded[0], value, rtol=1e-5)
    chex.assert_trees_all_close(sharded[1], gradient, rtol=1e-5, atol=1e-5)
