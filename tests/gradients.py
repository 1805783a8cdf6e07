"""Gradients of losses, with one or two compilations each."""

import jax
import numpy as np


def rows_and_gradients(function, *args):
    """What a function returns for each row, and the gradients of the sum by every argument."""

    def total(args):
        loss_N = function(*args)
        return loss_N.sum(), loss_N

    (_, loss_N), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(args)
    return np.asarray(loss_N), jax.tree.map(np.asarray, gradients)


def check_gradient(loss, args, *, eps=1e-4, rtol=2e-2, atol=5e-3):
    """Finite differences, and twice the gradient where twice as much comes from above.

    `jax.test_util.check_grads` of a scalar in reverse mode, with its step, its one random
    direction and its look at the value, which the gradient's own pass must not change; that
    compiles three programs and every small operation, this two.
    """
    function = jax.jit(loss)
    gradient_of = jax.jit(jax.value_and_grad(lambda args, scale: scale * loss(*args)))
    args = tuple(np.asarray(x) for x in args)
    value, gradient = gradient_of(args, 1.0)
    np.testing.assert_allclose(value, function(*args), rtol=1e-5, atol=1e-6)
    for once, twice in zip(gradient, gradient_of(args, 2.0)[1], strict=True):
        np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)

    draw = np.random.default_rng(0)
    direction = [draw.normal(size=x.shape).astype(x.dtype) for x in args]
    steps = [[np.float32(step) * d for d in direction] for step in (eps, -eps)]
    above, below = (
        np.float64(function(*(x + d for x, d in zip(args, step, strict=True)))) for step in steps
    )
    slope = sum(np.vdot(np.float64(g), d) for g, d in zip(gradient, direction, strict=True))
    np.testing.assert_allclose(slope, (above - below) / (2 * eps), rtol=rtol, atol=atol)
    return jax.tree.map(np.asarray, gradient)
