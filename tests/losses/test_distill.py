"""The blocked losses against float64, against themselves in other shapes, and on every mesh."""

import copy
import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from jax.sharding import NamedSharding, PartitionSpec

from tests.gradients import check_gradient
from tests.losses.cases import (
    CHUNKS,
    Case,
    dense,
    identity_projection,
    spans_of,
    value_and_gradient_of_sums,
)
from tests.reference import losses as reference
from xtoken_jax.losses import (
    DistillationSums,
    Objective,
    Tables,
    distillation_sums,
    next_token_log_probs,
    projected_kl,
)
from xtoken_jax.ops import to_device
from xtoken_jax.train.mesh import make_mesh

jitted_sums = jax.jit(distillation_sums, static_argnames=("objective", "block_tokens"))


def sums(case, student=None, teacher=None, *, function=jitted_sums, block_tokens=8, **options):
    return function(
        student or case.student,
        teacher or case.teacher,
        case.spans,
        Tables(case.device_projection),
        case.target_mask_BS,
        objective=Objective(**options),
        block_tokens=block_tokens,
    )


def expected(case, *, chunk_merge="chain_rule", temperature=1.0):
    """Every chunk and token, one after the other, in float64."""
    V, U = case.projection.num_student_tokens, case.projection.num_teacher_tokens
    W = dense(case.projection)
    reachable = W.sum(axis=0) > 0
    student, teacher = (
        np.asarray(output.hidden_BSD, np.float64) @ np.asarray(output.unembedding_VD, np.float64).T
        for output in (case.student, case.teacher)
    )
    student_ids, teacher_ids = np.asarray(case.student.ids_BS), np.asarray(case.teacher.ids_BS)
    total = dict.fromkeys(DistillationSums._fields, 0.0)
    for row, chunks in enumerate(case.rows):
        for i in range(case.S - 1):
            target = student_ids[row, i + 1]
            total["cross_entropy"] += reference.cross_entropy(student[row, i], target, V)
            total["num_targets"] += 1
        for a, b, c, d in chunks:
            if a == 0 or c == 0:
                continue
            p = reference.softmax(student[row, a - 1], V, temperature)[:V]
            q = reference.softmax(teacher[row, c - 1], U, temperature)[:U]
            if chunk_merge == "first":
                b, d = a + 1, c + 1
            m_S = reference.chunk_measure(student[row], student_ids[row], a, b, V, temperature)[:V]
            m_T = reference.chunk_measure(teacher[row], teacher_ids[row], c, d, U, temperature)[:U]
            total["distillation"] += reference.projected_kl(m_S, m_T, W, temperature)
            total["num_chunks"] += 1
            total["agreement"] += np.argmax(p @ W) == np.argmax(np.where(reachable, q, 0))
            total["unreachable"] += q[~reachable].sum()
    return DistillationSums(**total)


@pytest.mark.parametrize("chunk_merge", ["chain_rule", "first"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_equals_the_float64_reference(chunk_merge, temperature):
    case = Case(seed=21)
    options = {"chunk_merge": chunk_merge, "temperature": temperature}
    result = jax.device_get(sums(case, **options))
    chex.assert_trees_all_close(result, expected(case, **options), rtol=1e-5)
    assert result.num_targets == 2 * (case.S - 1)
    assert result.num_chunks == 2 * (len(CHUNKS) - 1)  # the first one has no predictor
    assert 0 < result.agreement < result.num_chunks


def total(case, hidden, unembedding, **options):
    student = case.student._replace(hidden_BSD=hidden, unembedding_VD=unembedding)
    result = sums(case, student, **options)
    return result.cross_entropy + 3.0 * result.distillation


def value_and_gradient(case, scales=(1.0, 3.0), *, block_tokens=8):
    """Of `total`, or with other scales of cross-entropy and distillation."""
    arguments = case.student, case.teacher, case.spans, Tables(case.device_projection)
    return value_and_gradient_of_sums(
        *arguments, case.target_mask_BS, scales, objective=Objective(), block_tokens=block_tokens
    )


@pytest.mark.parametrize("block_tokens", [1, 6, 10, 1000])
def test_blocks_equal_the_whole(block_tokens):
    case = Case(seed=2)
    whole, whole_gradient = value_and_gradient(case, block_tokens=24)
    blocks, gradient = value_and_gradient(case, block_tokens=block_tokens)
    np.testing.assert_allclose(blocks, whole, rtol=1e-6)
    chex.assert_trees_all_close(gradient, whole_gradient, rtol=1e-5, atol=1e-6)


def on_whole_arrays(case, hidden, unembedding):
    """`total` from the logits of the whole batch, chunk by chunk."""
    V, U = case.projection.num_student_tokens, case.projection.num_teacher_tokens
    student = jax.nn.log_softmax((hidden @ unembedding.T)[..., :V])
    teacher = jax.nn.log_softmax((case.teacher[0] @ case.teacher[1].T)[..., :U])
    W = to_device(case.projection)
    result = 0.0
    for row, chunks in enumerate(case.rows):
        student_ids, teacher_ids = case.student.ids_BS[row], case.teacher.ids_BS[row]
        result -= sum(student[row, i, student_ids[i + 1]] for i in range(case.S - 1))
        for a, b, c, d in chunks:
            if a >= 1 and c >= 1:
                rests = [
                    sum((log_probs[i - 1, ids[i]] for i in range(first, end)), start=jnp.zeros(()))
                    for log_probs, ids, first, end in (
                        (student[row], student_ids, a + 1, b),
                        (teacher[row], teacher_ids, c + 1, d),
                    )
                ]
                loss_N = projected_kl(
                    student[row, a - 1][None],
                    teacher[row, c - 1][None],
                    W,
                    jnp.ones(1, bool),
                    student_log_rest_N=rests[0][None],
                    teacher_log_rest_N=rests[1][None],
                )
                result += 3.0 * loss_N[0]
    return result


def test_value_and_gradient_equal_those_on_whole_arrays():
    case = Case(seed=14, rows=[CHUNKS, CHUNKS[1:4]])
    function = functools.partial(on_whole_arrays, case)
    whole, whole_gradient = jax.jit(jax.value_and_grad(function, argnums=(0, 1)))(*case.student[:2])
    value, gradient = value_and_gradient(case)
    np.testing.assert_allclose(value, whole, rtol=1e-5)
    chex.assert_trees_all_close(gradient, whole_gradient, rtol=1e-4, atol=1e-5)


def test_a_student_that_equals_its_teacher_has_nothing_to_learn():
    chunks = ((0, 1, 0, 1), (1, 2, 1, 2), (2, 4, 2, 4), (5, 8, 5, 8))
    case = Case(seed=15, rows=[chunks] * 2)
    case.device_projection = to_device(
        identity_projection(41), student_vocab_size=44, teacher_vocab_size=44
    )
    case.spans = spans_of(case.rows, case.S, case.S)

    def distillation(hidden):
        return sums(case, case.student._replace(hidden_BSD=hidden), case.student).distillation

    value, gradient = jax.jit(jax.value_and_grad(distillation))(case.student.hidden_BSD)
    np.testing.assert_allclose(value, 0, atol=1e-5)
    np.testing.assert_allclose(gradient, 0, atol=1e-5)


def test_gradient_equals_finite_differences_and_scales_with_what_comes_from_above():
    case = Case(seed=3, B=1, V=11, U=9, D=3, E=3)
    check_gradient(functools.partial(total, case), case.student[:2])


def test_the_teacher_gets_no_gradient():
    case = Case(seed=5)

    def of_teacher(hidden, unembedding):
        teacher = case.teacher._replace(hidden_BSD=hidden, unembedding_VD=unembedding)
        return sums(case, teacher=teacher).distillation

    gradient = jax.jit(jax.grad(of_teacher, argnums=(0, 1)))(*case.teacher[:2])
    chex.assert_trees_all_equal(gradient, jax.tree.map(np.zeros_like, gradient))


def with_rows_of_9(unembedding, first):
    changed = np.array(unembedding)
    changed[first:] = 9.0
    return jnp.asarray(changed)


def test_rows_past_the_tokenizer_do_not_matter_and_get_no_gradient():
    case = Case(seed=6)
    V, U = case.projection.num_student_tokens, case.projection.num_teacher_tokens
    student, teacher = (
        output._replace(unembedding_VD=with_rows_of_9(output.unembedding_VD, first))
        for output, first in ((case.student, V), (case.teacher, U))
    )
    chex.assert_trees_all_close(sums(case, student, teacher), sums(case), rtol=1e-6)
    gradient = np.asarray(value_and_gradient(case)[1][1])
    assert not gradient[V:].any()
    assert gradient[:V].any()


def test_without_a_scored_chunk_everything_is_exactly_zero():
    case = Case(seed=7, rows=[CHUNKS[:1]] * 2)
    result = sums(case)
    assert result.distillation == result.num_chunks == result.agreement == 0
    loss, (gradient, _) = value_and_gradient(case, (0.0, 1.0))
    assert loss == 0
    assert not np.asarray(gradient).any()


def row_of(row, x):
    return jnp.asarray(np.asarray(x)[row : row + 1])


def test_the_sums_of_a_batch_are_those_of_its_rows():
    rows = [CHUNKS, CHUNKS[2:4]]
    case = Case(seed=8, rows=rows)
    parts = []
    for row in range(2):
        one = Case(seed=8, rows=rows)
        one.spans = jax.tree.map(functools.partial(row_of, row), case.spans)
        one.target_mask_BS = row_of(row, case.target_mask_BS)
        cut = [
            output._replace(
                hidden_BSD=row_of(row, output.hidden_BSD), ids_BS=row_of(row, output.ids_BS)
            )
            for output in (case.student, case.teacher)
        ]
        parts.append(jax.device_get(sums(one, *cut)))
    added = DistillationSums(*(x + y for x, y in zip(*parts, strict=True)))
    chex.assert_trees_all_close(sums(case), added, rtol=1e-5)


def test_bfloat16_hidden_states_are_close():
    exact, rounded = Case(seed=9), Case(seed=9, dtype=jnp.bfloat16)
    result = sums(rounded)
    assert result.distillation.dtype == jnp.float32
    # bfloat16 keeps 8 bits: inputs of size 1 move logits of size sqrt(D) by about 1%.
    np.testing.assert_allclose(result.distillation, sums(exact).distillation, rtol=0.05)


@pytest.fixture(scope="module")
def on_one_device():
    case = Case(seed=10, B=8, V=45, U=30, D=6, E=4)  # 48 and 32 rows divide over 8 devices
    return case, value_and_gradient(case, block_tokens=32)


MESHES = [shape for shape in itertools.product((1, 2, 4, 8), repeat=3) if np.prod(shape) == 8]


@pytest.mark.parametrize("shape", MESHES, ids=lambda shape: "x".join(map(str, shape)))
def test_every_mesh_equals_one_device(shape, on_one_device):
    case, (value, gradient) = copy.copy(on_one_device[0]), on_one_device[1]
    mesh = make_mesh(data=shape[0], fsdp=shape[1], tensor=shape[2])
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    vocabulary = NamedSharding(mesh, PartitionSpec("tensor"))

    def on_mesh(output):
        placed = jax.device_put(output[:2], (rows, vocabulary))
        return output._replace(hidden_BSD=placed[0], unembedding_VD=placed[1])

    case.student, case.teacher = on_mesh(case.student), on_mesh(case.teacher)
    case.spans = jax.device_put(case.spans, rows)
    with jax.set_mesh(mesh):
        sharded = value_and_gradient(case, block_tokens=32)
    np.testing.assert_allclose(sharded[0], value, rtol=1e-5)
    # Sums in another order: rounding of float32 relative to the largest entries.
    chex.assert_trees_all_close(sharded[1], gradient, rtol=1e-5, atol=1e-5)


def test_compiles_once():
    case = Case(seed=11)
    traced = chex.assert_max_traces(
        lambda student: sums(case, student, function=distillation_sums), n=1
    )
    function = jax.jit(traced)
    function(case.student)
    function(case.student._replace(hidden_BSD=case.student.hidden_BSD + 1))


def gradient_of_a_longer_batch(S):
    """The jitted gradient of a case whose logits are much larger than a block's, and its inputs."""
    case = Case(seed=12, B=2, V=4096, U=2048, D=8, E=8)
    case.spans = jax.tree.map(lambda x: jnp.tile(x, (1, S // x.shape[1])), case.spans)

    def longer(output):
        hidden = jnp.ones((2, S, 8))
        return output._replace(hidden_BSD=hidden, ids_BS=jnp.zeros((2, S), jnp.int32))

    case.student, case.teacher = longer(case.student), longer(case.teacher)
    case.target_mask_BS = jnp.ones((2, S), bool)
    function = functools.partial(total, case, block_tokens=32, function=distillation_sums)
    return jax.jit(jax.grad(function, argnums=(0, 1))), case.student[:2]


def test_memory_does_not_grow_with_the_batch_as_its_logits_do():
    def temporary_bytes(S):
        function, inputs = gradient_of_a_longer_batch(S)
        return function.lower(*inputs).compile().memory_analysis().temp_size_in_bytes

    short, long = temporary_bytes(12 * 14), temporary_bytes(12 * 14 * 4)
    logits_of_the_difference = 2 * 12 * 14 * 3 * 4096 * 4
    assert long - short < 0.05 * logits_of_the_difference


def test_no_array_of_the_gradient_is_as_large_as_the_logits_of_the_batch():
    S = 12 * 14 * 4
    function, inputs = gradient_of_a_longer_batch(S)

    def sizes(jaxpr):
        for equation in jaxpr.eqns:
            yield from (var.aval.size for var in equation.outvars if hasattr(var.aval, "size"))
            for inner in jaxprs_in_params(equation.params):
                yield from sizes(inner)

    assert max(sizes(jax.make_jaxpr(function)(*inputs).jaxpr)) < 2 * S * 2048 / 2


def test_temperature_must_be_positive():
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        sums(Case(), temperature=0.0)


def test_next_token_log_probs_equal_the_float64_reference():
    case = Case(seed=13)
    V = case.projection.num_student_tokens
    function = functools.partial(next_token_log_probs, num_tokens=V, block_tokens=6)
    result = np.asarray(jax.jit(functools.partial(function, temperature=1.5))(case.student))
    hidden = np.asarray(case.student.hidden_BSD, np.float64)
    logits = hidden @ np.asarray(case.student.unembedding_VD, np.float64).T
    for row in range(2):
        for i in range(case.S - 1):
            probs = reference.softmax(logits[row, i], V, 1.5)
            target = np.asarray(case.student.ids_BS)[row, i + 1]
            np.testing.assert_allclose(result[row, i], np.log(probs[target]), rtol=1e-5)
