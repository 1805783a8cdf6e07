"""Several teachers: sums, trust, selection, and a mean of logits without logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.losses import softmax
from xtoken_jax.losses import (
    ModelOutput,
    TeacherScores,
    mean_logits,
    next_token_log_probs,
    selected,
    sum_losses,
    teacher_scores,
    trust_weights,
)


def output(seed, *, B=2, T=5, rows=13, D=4, num_tokens=11):
    draw = np.random.default_rng(seed)
    return ModelOutput(
        jnp.asarray(draw.normal(size=(B, T, D)), jnp.float32),
        jnp.asarray(2 * draw.normal(size=(rows, D)), jnp.float32),
        jnp.asarray(draw.integers(0, num_tokens, (B, T)), jnp.int32),
    )


def scores(*cross_entropies):
    return [
        TeacherScores(*map(jnp.float32, (value, value / 2, np.exp(-value))))
        for value in cross_entropies
    ]


def test_scores_equal_the_float64_reference():
    teacher, mask = output(1), np.ones((2, 5), bool)
    mask[:, -1] = mask[0, 2] = False
    function = functools.partial(teacher_scores, num_tokens=11, block_tokens=4)
    result = jax.jit(function)(teacher, mask)
    hidden = np.asarray(teacher.hidden_BSD, np.float64)
    logits = hidden @ np.asarray(teacher.unembedding_VD, np.float64).T
    parts = []
    for row, position in zip(*np.nonzero(mask), strict=True):
        probs = softmax(logits[row, position], 11)[:11]
        target = np.asarray(teacher.ids_BS)[row, position + 1]
        parts.append([-np.log(probs[target]), -(probs * np.log(probs)).sum(), probs.max()])
    np.testing.assert_allclose(result, np.mean(parts, axis=0), rtol=1e-5)


def test_scores_of_nothing_are_zero():
    function = functools.partial(teacher_scores, num_tokens=11, block_tokens=4)
    result = jax.jit(function)(output(1), np.zeros((2, 5), bool))
    assert [float(score) for score in result] == [0.0, 0.0, 0.0]


def test_sum_with_static_weights_and_with_vocabularies():
    losses = [jnp.float32(3.0), jnp.float32(5.0)]
    np.testing.assert_allclose(sum_losses(losses, [0.5, 2.0]), 11.5)
    scaled = sum_losses(losses, [0.5, 2.0], vocab_sizes=[100, 1000])
    np.testing.assert_allclose(scaled, 1.5 + 10.0 * np.log(1000) / np.log(100), rtol=1e-6)
    gradient = jax.grad(lambda first: sum_losses([first, losses[1]], [0.5, 2.0]))(losses[0])
    assert gradient == 0.5


@pytest.mark.parametrize(
    ("trust", "expected"),
    [
        ("cross_entropy", [-1.0, -3.0]),
        ("entropy", [-0.5, -1.5]),
        ("max_prob", [np.exp(-1), np.exp(-3)]),
    ],
)
def test_trust_is_a_softmax_of_the_scores(trust, expected):
    weights = trust_weights(scores(1.0, 3.0), trust=trust, alpha=2.0)
    exp = np.exp(2.0 * np.array(expected))
    np.testing.assert_allclose(weights, exp / exp.sum(), rtol=1e-6)
    scaled = trust_weights(scores(1.0, 3.0), trust=trust, vocab_sizes=[50, 2500])
    exp = np.exp(np.array(expected) * [1.0, 2.0])
    np.testing.assert_allclose(scaled, exp / exp.sum(), rtol=1e-6)


def test_trust_is_held_constant():
    def total(cross_entropy):
        score = TeacherScores(cross_entropy, cross_entropy, cross_entropy)
        losses = [jnp.float32(1.0), jnp.float32(2.0)]
        return sum_losses(losses, trust_weights([score, *scores(1.0)]))

    assert jax.grad(total)(jnp.float32(0.5)) == 0.0


def test_the_surest_teacher_is_selected_and_others_cannot_spoil_it():
    def total(losses):
        return selected(list(losses), scores(2.0, 1.0, 3.0))[0]

    losses = np.float32([np.nan, 7.0, np.inf])
    value, gradient = jax.jit(jax.value_and_grad(total))(losses)
    assert value == 7.0
    assert gradient.tolist() == [0.0, 1.0, 0.0]
    assert selected([*map(jnp.asarray, losses)], scores(2.0, 1.0, 3.0))[1] == 1


def test_a_mean_of_logits_is_one_teacher():
    ids = output(1).ids_BS
    teachers = [output(1), output(2, rows=12, D=3)._replace(ids_BS=ids)]
    merged = mean_logits(teachers, [3.0, 1.0], fingerprints=["one", "one"])
    logits = [np.float64(t.hidden_BSD) @ np.float64(t.unembedding_VD)[:11].T for t in teachers]
    mean = 0.75 * logits[0] + 0.25 * logits[1]
    expected = mean - np.log(np.exp(mean).sum(axis=2, keepdims=True))
    result = jax.jit(functools.partial(next_token_log_probs, num_tokens=11))(merged)
    targets = np.roll(ids, -1, axis=1)[..., None]
    np.testing.assert_allclose(
        result, np.take_along_axis(expected, targets, axis=2)[..., 0], rtol=1e-5
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda one: sum_losses([one], [1.0, 2.0]), r"`weights` must have one entry a teacher \(1"),
        (lambda one: sum_losses([one, one], [0.0, 0.0]), "`weights` must be .* not sum to 0"),
        (lambda one: sum_losses([one, one], [-1.0, 2.0]), "`weights` must be at least 0"),
        (lambda one: sum_losses([], []), "at least one teacher"),
        (lambda one: sum_losses([one], [1.0], vocab_sizes=[1, 2]), "`vocab_sizes` must have one"),
        (lambda one: trust_weights(scores(1.0), trust="luck"), "`trust` must be one of"),
        (lambda one: trust_weights(scores(1.0), alpha=0.0), "`alpha` must be positive, got 0"),
        (lambda one: selected([one], scores(1.0, 2.0)), "`scores` must have one entry"),
        (
            lambda one: mean_logits([output(1)] * 2, [1.0, 1.0], fingerprints=["a", "b"]),
            "`fingerprints` must be of one tokenizer",
        ),
        (
            lambda one: mean_logits([output(1)] * 2, [0.0, 0.0], fingerprints=["a", "a"]),
            "not sum to 0",
        ),
    ],
)
def test_what_cannot_work_is_refused(unchecked, call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.float32(1.0))
