"""The blocked losses against float64, against themselves in other shapes, and on every mesh."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from jax.test_util import check_grads

from tests.losses.cases import CHUNKS, Case, dense
from tests.reference import losses as reference
from xtoken_jax.losses import DistillationSums, distillation_sums, next_token_log_probs
from xtoken_jax.train.mesh import make_mesh


def sums(case, student=None, teacher=None, **options):
    options = {"block_tokens": 8, **options}
    return distillation_sums(
        student or case.student,
        teacher or case.teacher,
        case.spans,
        case.device_projection,
        case.target_mask_BS,
        **options,
    )


def expected(case, *, chunk_merge="chain_rule", temperature=1.0):
    """Every chunk and token, one after the other, in float64."""
    V, U = case.projection.num_student_tokens, case.projection.num_teacher_tokens
    W = dense(case.projection)
    logits = [
        np.asarray(output.hidden_BSD, np.float64) @ np.asarray(output.unembedding_VD, np.float64).T
        for output in (case.student, case.teacher)
    ]
    ids = [np.asarray(output.ids_BS) for output in (case.student, case.teacher)]
    cross_entropy = distillation = 0.0
    for row, chunks in enumerate(case.rows):
        for i in range(case.S - 1):
            cross_entropy += reference.cross_entropy(logits[0][row, i], ids[0][row, i + 1], V)
        for a, b, c, d in chunks:
            if a == 0 or c == 0:
                continue
            if chunk_merge == "first":
                b, d = a + 1, c + 1
            m_S = reference.chunk_measure(logits[0][row], ids[0][row], a, b, V, temperature)[:V]
            m_T = reference.chunk_measure(logits[1][row], ids[1][row], c, d, U, temperature)[:U]
            distillation += reference.projected_kl(m_S, m_T, W, temperature)
    return cross_entropy, distillation


@pytest.mark.parametrize("chunk_merge", ["chain_rule", "first"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_equals_the_float64_reference(chunk_merge, temperature):
    case = Case(seed=1)
    options = {"chunk_merge": chunk_merge, "temperature": temperature}
    result = sums(case, **options)
    cross_entropy, distillation = expected(case, **options)
    np.testing.assert_allclose(result.cross_entropy, cross_entropy, rtol=1e-5)
    np.testing.assert_allclose(result.distillation, distillation, rtol=1e-5)
    assert result.num_targets == 2 * (case.S - 1)
    assert result.num_chunks == 2 * (len(CHUNKS) - 1)  # the first one has no predictor


def total(case, hidden, unembedding, **options):
    student = case.student._replace(hidden_BSD=hidden, unembedding_VD=unembedding)
    result = sums(case, student, **options)
    return result.cross_entropy + 3.0 * result.distillation


def value_and_gradient(case, **options):
    function = functools.partial(total, case, **options)
    return jax.value_and_grad(function, argnums=(0, 1))(*case.student[:2])


@pytest.mark.parametrize("block_tokens", [1, 6, 10, 1000])
def test_blocks_equal_the_whole(block_tokens):
    case = Case(seed=2)
    whole, whole_gradient = value_and_gradient(case, block_tokens=24)
    blocks, gradient = value_and_gradient(case, block_tokens=block_tokens)
    np.testing.assert_allclose(blocks, whole, rtol=1e-6)
    chex.assert_trees_all_close(gradient, whole_gradient, rtol=1e-5, atol=1e-6)


def test_gradient_equals_finite_differences():
    case = Case(seed=3, B=1, V=11, U=9, D=3, E=3)
    check_grads(functools.partial(total, case), case.student[:2], order=1, modes=["rev"], rtol=2e-2)


def test_gradient_scales_with_what_comes_from_above():
    case = Case(seed=4)
    once = jax.grad(functools.partial(total, case))(*case.student[:2])
    twice = jax.grad(lambda *args: 2.0 * total(case, *args))(*case.student[:2])
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_the_teacher_gets_no_gradient():
    case = Case(seed=5)

    def of_teacher(hidden, unembedding):
        teacher = case.teacher._replace(hidden_BSD=hidden, unembedding_VD=unembedding)
        return sums(case, teacher=teacher).distillation

    gradient = jax.grad(of_teacher, argnums=(0, 1))(*case.teacher[:2])
    chex.assert_trees_all_equal(gradient, jax.tree.map(jnp.zeros_like, gradient))


def test_rows_past_the_tokenizer_do_not_matter_and_get_no_gradient():
    case = Case(seed=6)
    V, U = case.projection.num_student_tokens, case.projection.num_teacher_tokens
    student = case.student._replace(unembedding_VD=case.student.unembedding_VD.at[V:].set(9.0))
    teacher = case.teacher._replace(unembedding_VD=case.teacher.unembedding_VD.at[U:].set(9.0))
    chex.assert_trees_all_close(sums(case, student, teacher), sums(case), rtol=1e-6)
    _, (_, gradient) = value_and_gradient(case)
    assert not np.asarray(gradient[V:]).any()
    assert np.asarray(gradient[:V]).any()


def test_without_a_scored_chunk_everything_is_exactly_zero():
    case = Case(seed=7, rows=[CHUNKS[:1]] * 2)
    result = sums(case)
    assert result.distillation == result.num_chunks == result.agreement == 0
    gradient = jax.grad(
        lambda hidden: sums(case, case.student._replace(hidden_BSD=hidden)).distillation
    )(case.student.hidden_BSD)
    assert not np.asarray(gradient).any()


def test_the_sums_of_a_batch_are_those_of_its_rows():
    rows = [CHUNKS, CHUNKS[2:4]]
    case = Case(seed=8, rows=rows)
    parts = []
    for row in range(2):
        one = Case(seed=8, rows=rows)
        one.spans = jax.tree.map(lambda x, row=row: x[row : row + 1], case.spans)
        one.target_mask_BS = case.target_mask_BS[row : row + 1]
        cut = [
            output._replace(
                hidden_BSD=output.hidden_BSD[row : row + 1], ids_BS=output.ids_BS[row : row + 1]
            )
            for output in (case.student, case.teacher)
        ]
        parts.append(sums(one, *cut))
    added = DistillationSums(*(x + y for x, y in zip(*parts, strict=True)))
    chex.assert_trees_all_close(sums(case), added, rtol=1e-5)


def test_bfloat16_hidden_states_are_close():
    exact, rounded = Case(seed=9), Case(seed=9, dtype=jnp.bfloat16)
    result = sums(rounded)
    assert result.distillation.dtype == jnp.float32
    # bfloat16 keeps 8 bits: inputs of size 1 move logits of size sqrt(D) by about 1%.
    np.testing.assert_allclose(result.distillation, sums(exact).distillation, rtol=0.05)


@pytest.mark.parametrize("shape", [(2, 1, 1), (1, 2, 1), (1, 1, 8), (2, 2, 2), (4, 2, 1)])
def test_every_mesh_equals_one_device(shape):
    case = Case(seed=10, B=8, V=45, U=30, D=6, E=4)  # 48 and 32 rows divide over 8 devices
    value, gradient = value_and_gradient(case, block_tokens=32)
    mesh = make_mesh(data=shape[0], fsdp=shape[1], tensor=shape[2])
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    vocabulary = NamedSharding(mesh, PartitionSpec("tensor"))

    def on_mesh(output):
        placed = jax.device_put(output[:2], (rows, vocabulary))
        return output._replace(hidden_BSD=placed[0], unembedding_VD=placed[1])

    case.student, case.teacher = on_mesh(case.student), on_mesh(case.teacher)
    case.spans = jax.device_put(case.spans, rows)
    with jax.set_mesh(mesh):
        function = jax.jit(lambda *args: total(case, *args, block_tokens=32))
        sharded = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))(*case.student[:2])
    np.testing.assert_allclose(sharded[0], value, rtol=1e-5)
    # Sums in another order: rounding of float32 relative to the largest entries.
    chex.assert_trees_all_close(sharded[1], gradient, rtol=1e-5, atol=1e-5)


def test_compiles_once():
    case = Case(seed=11)
    traced = chex.assert_max_traces(lambda student: sums(case, student), n=1)
    function = jax.jit(traced)
    function(case.student)
    function(case.student._replace(hidden_BSD=case.student.hidden_BSD + 1))


def test_memory_does_not_grow_with_the_batch_as_its_logits_do():
    V, U, D, B, block = 4096, 2048, 8, 2, 32

    def temporary_bytes(S):
        case = Case(seed=12, B=B, V=V, U=U, D=D, E=D)
        case.spans = jax.tree.map(lambda x: jnp.tile(x, (1, S // x.shape[1])), case.spans)
        draw = np.random.default_rng(0)

        def longer(output):
            hidden = jnp.asarray(draw.normal(size=(B, S, D)), jnp.float32)
            return output._replace(hidden_BSD=hidden, ids_BS=jnp.zeros((B, S), jnp.int32))

        case.student, case.teacher = longer(case.student), longer(case.teacher)
        case.target_mask_BS = jnp.ones((B, S), bool)
        function = jax.grad(lambda *args: total(case, *args, block_tokens=block), argnums=(0, 1))
        compiled = jax.jit(function).lower(*case.student[:2]).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    short, long = temporary_bytes(12 * 14), temporary_bytes(12 * 14 * 4)
    logits_of_the_difference = B * 12 * 14 * 3 * V * 4
    assert long - short < 0.05 * logits_of_the_difference


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        sums(Case(), temperature=0)


def test_next_token_log_probs_equal_the_float64_reference():
    case = Case(seed=13)
    V = case.projection.num_student_tokens
    result = next_token_log_probs(case.student, num_tokens=V, temperature=1.5, block_tokens=6)
    hidden = np.asarray(case.student.hidden_BSD, np.float64)
    logits = hidden @ np.asarray(case.student.unembedding_VD, np.float64).T
    for row in range(2):
        for i in range(case.S - 1):
            probs = reference.softmax(logits[row, i], V, 1.5)
            target = int(case.student.ids_BS[row, i + 1])
            np.testing.assert_allclose(result[row, i], np.log(probs[target]), rtol=1e-5)
