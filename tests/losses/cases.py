"""Random cases that the loss tests share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from xtoken_jax.losses import ModelOutput, distillation_sums
from xtoken_jax.ops import Spans, to_device
from xtoken_jax.projection import Projection


def random_projection(draw, V, U, *, K=3, unreachable=2):
    """W with rows of 1 to K entries; the last `unreachable` columns have none."""
    ids_VK = np.full((V, K), -1, np.int32)
    weights_VK = np.zeros((V, K), np.float32)
    for row in range(V):
        count = draw.integers(1, K + 1)
        ids_VK[row, :count] = draw.choice(U - unreachable, count, replace=False)
        weights = 0.1 ** np.arange(count)
        weights_VK[row, :count] = weights / weights.sum()
    return Projection(ids_VK, weights_VK, V, U, "student", "teacher", {})


def identity_projection(V):
    ids_VK = np.arange(V, dtype=np.int32)[:, None]
    return Projection(ids_VK, np.ones((V, 1), np.float32), V, V, "student", "teacher", {})


def dense(projection):
    """W as a float64 array."""
    W = np.zeros((projection.num_student_tokens, projection.num_teacher_tokens))
    for row, (ids, weights) in enumerate(
        zip(projection.ids_VK, projection.weights_VK, strict=True)
    ):
        for id, weight in zip(ids, weights, strict=True):
            if id >= 0:
                W[row, id] += weight
    return W


# Chunks (a, b, c, d) of a row of 12 student and 14 teacher tokens: 1-1, 1-3, 3-1, 2-3, gaps, and
# a chunk at the very start, which nothing predicts.
CHUNKS = ((0, 1, 0, 1), (1, 2, 1, 2), (2, 3, 2, 5), (3, 6, 5, 6), (7, 9, 7, 10), (10, 11, 12, 13))


def spans_of(rows, S, T):
    """Fixed-shape arrays of rows of chunks, from the definition."""
    B = len(rows)
    student_chunk_BS, teacher_chunk_BT = np.full((B, S), -1), np.full((B, T), -1)
    student_start_BN, teacher_start_BN = np.zeros((B, S), int), np.zeros((B, S), int)
    mask_BN = np.zeros((B, S), bool)
    for row, chunks in enumerate(rows):
        for k, (a, b, c, d) in enumerate(chunks):
            student_chunk_BS[row, a:b] = teacher_chunk_BT[row, c:d] = k
            student_start_BN[row, k], teacher_start_BN[row, k] = a, c
            mask_BN[row, k] = a >= 1 and c >= 1
    arrays = (student_chunk_BS, teacher_chunk_BT, student_start_BN, teacher_start_BN)
    return Spans(*(jnp.asarray(x, jnp.int32) for x in arrays), jnp.asarray(mask_BN))


@functools.partial(jax.jit, static_argnames=("objective", "block_tokens"))
def value_and_gradient_of_sums(
    student, teacher, spans, tables, target_mask_BS, scales, *, objective, block_tokens
):
    """Cross-entropy and distillation times two scales, and the gradient by the student's arrays.

    One compilation for all batches of the same shapes, and for either loss alone.
    """

    def total(hidden_BSD, unembedding_VD):
        moved = student._replace(hidden_BSD=hidden_BSD, unembedding_VD=unembedding_VD)
        options = {"objective": objective, "block_tokens": block_tokens}
        sums = distillation_sums(moved, teacher, spans, tables, target_mask_BS, **options)
        return scales[0] * sums.cross_entropy + scales[1] * sums.distillation

    return jax.value_and_grad(total, argnums=(0, 1))(*student[:2])


class Case:
    """A batch of random hidden states, unembeddings wider than their tokenizers, and chunks."""

    def __init__(self, *, seed=0, B=2, V=41, U=29, D=6, E=5, rows=None, dtype=jnp.float32):
        draw = np.random.default_rng(seed)
        self.S, self.T = 12, 14
        rows = [CHUNKS] * B if rows is None else rows
        self.rows = rows
        self.projection = random_projection(draw, V, U)
        self.device_projection = to_device(
            self.projection, student_vocab_size=V + 3, teacher_vocab_size=U + 2
        )
        self.spans = spans_of(rows, self.S, self.T)

        def output(length, rows, width, num_tokens):
            return ModelOutput(
                jnp.asarray(draw.normal(size=(B, length, width)), dtype),
                jnp.asarray(draw.normal(size=(rows, width)), dtype),
                jnp.asarray(draw.integers(0, num_tokens, (B, length)), jnp.int32),
            )

        self.student = output(self.S, V + 3, D, V)
        self.teacher = output(self.T, U + 2, E, U)
        self.target_mask_BS = jnp.asarray(np.arange(self.S)[None] < [[self.S - 1]] * B)
