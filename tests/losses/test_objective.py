"""Every loss with every merge and option, from hidden states, against float64."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from tests.gradients import check_gradient
from tests.losses.cases import Case, dense, spans_of, value_and_gradient_of_sums
from tests.reference import chunk_losses as reference
from xtoken_jax.losses import Objective, Tables, check_tables, distillation_sums
from xtoken_jax.ops import common_set_to_device, row_softmax, to_device, with_weights
from xtoken_jax.projection import CommonSet
from xtoken_jax.train.mesh import make_mesh

PAIRS = (np.array([0, 2, 3, 7, 11, 30], np.int32), np.array([4, 1, 0, 9, 20, 3], np.int32))
jitted_sums = jax.jit(distillation_sums, static_argnames=("objective", "block_tokens"))


def tables_of(case, objective):
    V, U = case.projection.num_student_tokens, case.projection.num_teacher_tokens
    common = fold = None
    if objective.loss in ("gold", "h_kl"):
        common = common_set_to_device(
            CommonSet(*PAIRS, np.ones(len(PAIRS[0]), bool)),
            num_student_tokens=V,
            num_teacher_tokens=U,
            student_vocab_size=case.student.unembedding_VD.shape[0],
            teacher_vocab_size=case.teacher.unembedding_VD.shape[0],
        )
    if objective.unreachable == "fold":
        rows = case.teacher.unembedding_VD.shape[0]
        fold = jnp.asarray(np.pad(fold_of(case), (0, rows - U), constant_values=-1))
    return Tables(case.device_projection, common, fold)


def fold_of(case):
    """The last unreachable token folds to token 5, the one before it nowhere."""
    reachable = dense(case.projection).sum(axis=0) > 0
    targets = np.where(reachable, np.arange(len(reachable)), -1).astype(np.int32)
    targets[np.flatnonzero(~reachable)[-1]] = np.flatnonzero(reachable)[5]
    return targets


def distillation(case, objective, hidden=None, unembedding=None, *, block_tokens=8):
    student = case.student
    if hidden is not None:
        student = student._replace(hidden_BSD=hidden, unembedding_VD=unembedding)
    return jitted_sums(
        student,
        case.teacher,
        case.spans,
        tables_of(case, objective),
        case.target_mask_BS,
        objective=objective,
        block_tokens=block_tokens,
    )


def expected(case, objective):
    """The loss and the number of chunks, one chunk after the other."""
    sizes = case.projection.num_student_tokens, case.projection.num_teacher_tokens
    logits = [
        np.asarray(output.hidden_BSD, np.float64) @ np.asarray(output.unembedding_VD, np.float64).T
        for output in (case.student, case.teacher)
    ]
    ids = np.asarray(case.student.ids_BS), np.asarray(case.teacher.ids_BS)
    top = top_of(case, logits[1], objective.top_k)
    total = count = 0.0
    for row, chunks in enumerate(case.rows):
        for a, b, c, d in chunks:
            if (
                a == 0
                or c == 0
                or (objective.chunk_merge == "mean" and is_long(objective, a, b, c, d))
            ):
                continue
            probs, rests = [], []
            for side, (first, end) in enumerate(((a, b), (c, d))):
                probs_nV = reference.position_probs(
                    logits[side][row], first, end, sizes[side], objective.temperature
                )
                rest = 1.0
                if objective.chunk_merge == "chain_rule":
                    for offset in range(1, end - first):
                        rest *= probs_nV[offset, ids[side][row, first + offset]]
                probs.append(probs_nV)
                rests.append(rest)
            total += objective.temperature**2 * chunk_loss(case, objective, *probs, rests, top)
            count += 1
    return total, count


def is_long(objective, a, b, c, d):
    return max(b - a, d - c) > objective.max_chunk_tokens


def top_of(case, teacher_logits_BTU, top_k):
    if top_k is None:
        return None
    U = case.projection.num_teacher_tokens
    predicts = np.zeros(teacher_logits_BTU.shape[:2], bool)
    for row, chunks in enumerate(case.rows):
        for a, _, c, d in chunks:
            if a >= 1 and c >= 1:
                predicts[row, c - 1 : d - 1] = True
    largest = teacher_logits_BTU[predicts].max(axis=0)[:U]
    top = np.zeros(U, bool)
    top[np.argsort(-largest)[:top_k]] = True
    return top


def chunk_loss(case, objective, p_nV, q_nU, rests, top):
    W = dense(case.projection)
    options = {"reverse": objective.reverse}
    columns = {"unreachable": objective.unreachable, "top": top}
    if objective.loss == "p_kl":
        if objective.chunk_merge == "mean":
            return reference.p_kl_mean(p_nV, q_nU, W, **options, **columns)
        fold = fold_of(case) if objective.unreachable == "fold" else None
        return reference.p_kl(p_nV, q_nU, rests, W, **options, **columns, fold=fold)
    if objective.chunk_merge == "mean":
        m_S, m_T = (np.exp(np.log(probs).mean(axis=0)) for probs in (p_nV, q_nU))
    else:
        m_S, m_T = rests[0] * p_nV[0], rests[1] * q_nU[0]
    if objective.loss == "uld":
        return reference.uld(m_S, m_T)
    return reference.hybrid(m_S, m_T, PAIRS, totals=rests, **options)


OBJECTIVES = [
    *(
        Objective(loss=loss, chunk_merge=merge, temperature=temperature)
        for loss in ("p_kl", "h_kl", "gold", "uld")
        for merge, temperature in (("chain_rule", 1.0), ("first", 2.0), ("mean", 1.5))
    ),
    Objective(reverse=True),
    Objective(reverse=True, chunk_merge="mean"),
    Objective(loss="gold", reverse=True),
    Objective(unreachable="keep"),
    Objective(unreachable="keep", chunk_merge="mean"),
    Objective(unreachable="fold"),
    Objective(top_k=7),
    Objective(top_k=7, reverse=True, chunk_merge="first"),
    Objective(top_k=7, chunk_merge="mean", unreachable="keep"),
    Objective(top_k=29),
    Objective(chunk_merge="mean", max_chunk_tokens=2),
]


def name_of(objective):
    default = Objective()
    changed = [
        f"{field}={value}"
        for field, value in vars(objective).items()
        if value != getattr(default, field)
    ]
    return ",".join(changed) or "default"


@pytest.mark.parametrize("objective", OBJECTIVES, ids=name_of)
def test_equals_the_float64_reference(objective):
    case = Case(seed=31)
    result = distillation(case, objective)
    loss, count = expected(case, objective)
    np.testing.assert_allclose(result.distillation, loss, rtol=2e-5)
    assert result.num_chunks == count > 2


# The default one is held to all this in test_distill.py.
SOME = [
    Objective(chunk_merge="mean"),
    Objective(loss="h_kl"),
    Objective(loss="uld", chunk_merge="mean"),
]


def value_and_gradient(case, objective, scales=(1.0, 1.0), *, block_tokens):
    """Of cross-entropy and distillation, each times its scale."""
    arguments = case.student, case.teacher, case.spans, tables_of(case, objective)
    return value_and_gradient_of_sums(
        *arguments, case.target_mask_BS, scales, objective=objective, block_tokens=block_tokens
    )


@pytest.mark.parametrize("objective", SOME, ids=name_of)
def test_blocks_equal_the_whole(objective):
    case = Case(seed=32)
    whole, whole_gradient = value_and_gradient(case, objective, block_tokens=1000)
    blocks, gradient = value_and_gradient(case, objective, block_tokens=10)
    np.testing.assert_allclose(blocks, whole, rtol=1e-6)
    chex.assert_trees_all_close(gradient, whole_gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "objective",
    [Objective(chunk_merge="mean"), Objective(loss="h_kl", chunk_merge="mean"), Objective(top_k=5)],
    ids=name_of,
)
def test_gradient_equals_finite_differences_and_scales_with_what_comes_from_above(objective):
    case = Case(seed=33, B=1, V=31, U=23, D=3, E=3)
    check_gradient(functools.partial(loss_of, case, objective), case.student[:2], eps=1e-2)


def loss_of(case, objective, hidden, unembedding):
    return distillation(case, objective, hidden, unembedding).distillation


def test_the_gradient_reaches_a_learned_w():
    case = Case(seed=37, B=1, V=31, U=23, D=3, E=3)
    on_device = case.device_projection

    def of_logits(logits_N):
        weights_N = row_softmax(jnp.asarray(logits_N), on_device)
        tables = Tables(with_weights(on_device, weights_N))
        return distillation_sums(
            case.student, case.teacher, case.spans, tables, block_tokens=8
        ).distillation

    logits_N = np.log(on_device.matrix_UV.data)
    gradient = check_gradient(of_logits, (logits_N,), eps=1e-2)
    assert gradient[0].any()


@pytest.mark.parametrize("objective", SOME, ids=name_of)
def test_without_a_scored_chunk_everything_is_exactly_zero(objective):
    case = Case(seed=34, rows=[((0, 1, 0, 1),)] * 2)
    loss, gradient = value_and_gradient(case, objective, (0.0, 1.0), block_tokens=10)
    assert loss == 0
    chex.assert_trees_all_equal(gradient, jax.tree.map(np.zeros_like, gradient))


def test_equal_sides_under_the_mean_have_nothing_to_learn_where_chunks_are_single_tokens():
    case = Case(seed=35, V=29, U=29)
    case.projection.ids_VK[:] = -1
    case.projection.ids_VK[:, 0] = np.arange(29)
    case.projection.weights_VK[:] = [1.0] + [0.0] * (case.projection.weights_VK.shape[1] - 1)
    case.device_projection = to_device(
        case.projection, student_vocab_size=32, teacher_vocab_size=32
    )
    case.teacher, case.T = case.student, case.S
    case.rows = [((1, 2, 1, 2), (4, 5, 4, 5))] * 2
    case.spans = spans_of(case.rows, case.S, case.S)
    objective = Objective(chunk_merge="mean")
    np.testing.assert_allclose(distillation(case, objective).distillation, 0, atol=1e-5)


@pytest.fixture(scope="module")
def on_one_device():
    case = Case(seed=36, B=8, V=45, U=30, D=6, E=4)  # 48 and 32 rows divide over 8 devices
    return case, {o: value_and_gradient(case, o, block_tokens=32) for o in SOME}


@pytest.mark.parametrize("objective", SOME, ids=name_of)
@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 2, 4)], ids=str)
def test_every_mesh_equals_one_device(shape, objective, on_one_device):
    case, results = on_one_device
    mesh = make_mesh(data=shape[0], fsdp=shape[1], tensor=shape[2])
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    vocabulary = NamedSharding(mesh, PartitionSpec("tensor"))

    def on_mesh(output):
        placed = jax.device_put(output[:2], (rows, vocabulary))
        return output._replace(hidden_BSD=placed[0], unembedding_VD=placed[1])

    sharded = Case(seed=36, B=8, V=45, U=30, D=6, E=4)
    sharded.student, sharded.teacher = on_mesh(case.student), on_mesh(case.teacher)
    sharded.spans = jax.device_put(case.spans, rows)
    with jax.set_mesh(mesh):
        value, gradient = value_and_gradient(sharded, objective, block_tokens=32)
    np.testing.assert_allclose(value, results[objective][0], rtol=1e-5)
    chex.assert_trees_all_close(gradient, results[objective][1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "`temperature` must be positive, got 0"),
        ({"loss": "kl"}, "`loss` must be one of"),
        ({"chunk_merge": "sum"}, "`chunk_merge` must be one of"),
        ({"unreachable": "drop"}, "`unreachable` must be one of"),
        ({"top_k": 0}, "`top_k` must be at least 1, got 0"),
        ({"loss": "gold", "top_k": 5}, "`top_k` is of p_kl, got 5 for gold"),
        ({"loss": "uld", "reverse": True}, "`reverse` is of p_kl, gold, h_kl"),
        ({"uncommon_top_k": 5}, "`uncommon_top_k` is of gold, h_kl"),
        ({"loss": "h_kl", "unreachable": "keep"}, "`unreachable` is of p_kl"),
        ({"loss": "c_kl", "chunk_merge": "first"}, "`chunk_merge` is of .*, got first for c_kl"),
    ],
)
def test_options_that_cannot_work_are_refused(unchecked, options, message):
    with pytest.raises(ValueError, match=message):
        Objective(**options)


def test_tables_that_do_not_fit_are_refused():
    case = Case()
    tables = Tables(case.device_projection)
    for objective, message in (
        (Objective(loss="h_kl"), "gold and h_kl need `tables.common`, got loss h_kl"),
        (Objective(unreachable="fold"), "`tables.fold_ids_U` must be given"),
        (Objective(loss="c_kl"), "c_kl needs `tables.tries`, got loss c_kl"),
        (Objective(top_k=30), "`top_k` must be at most the teacher's 29 tokens, got 30"),
    ):
        with pytest.raises(ValueError, match=message):
            check_tables(objective, tables)
    with pytest.raises(ValueError, match="alone take"):
        check_tables(Objective(), tables_of(case, Objective(loss="gold")))
