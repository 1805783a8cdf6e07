"""Time of the product with W, and of its gradient's, in the forms that were considered.

    python scripts/bench_product.py [--json] [--pairs llama3:qwen3] [--columns 64 128 256]

Columns are tokens: probabilities are `[student vocabulary, columns]` in float32. Forms run by
turns, and the figure is the least of their runs, in milliseconds.
"""

import argparse
import ctypes
import functools
import json
import os
import time
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from xtoken_jax.ops import DeviceProjection, project, to_device
from xtoken_jax.projection import build_projection
from xtoken_jax.text import ByteTokenizer

_REPEATS = 9


def bcoo(probs_VN, W):
    return W.matrix_UV @ probs_VN


def segment_sum(probs_VN, W):
    """Gather a row for each entry, then add up by teacher token."""
    teacher_E, student_E = W.matrix_UV.indices.T
    values_EN = W.matrix_UV.data[:, None] * probs_VN[student_E]
    return jax.ops.segment_sum(
        values_EN, teacher_E, num_segments=W.matrix_UV.shape[0], indices_are_sorted=True
    )


def blocks(probs_VN, W, *, width):
    """Blocks of a few columns, each by BCOO."""
    blocks_BVn = probs_VN.reshape(len(probs_VN), -1, width).swapaxes(0, 1)
    result_BUn = jax.lax.map(lambda block_Vn: W.matrix_UV @ block_Vn, blocks_BVn)
    return result_BUn.swapaxes(0, 1).reshape(-1, probs_VN.shape[1])


def gather_and_bcoo(probs_VN, first_and_rest):
    """The first entry of every teacher token by a gather, the others by BCOO."""
    ids_U, weights_U, rest_UV = first_and_rest
    return weights_U[:, None] * probs_VN[ids_U] + rest_UV @ probs_VN


def first_and_rest(W: DeviceProjection) -> tuple[jax.Array, jax.Array, sparse.BCOO]:
    """W split for `gather_and_bcoo`."""
    indices_E2, weights_E = np.asarray(W.matrix_UV.indices), W.matrix_UV.data
    is_rest_E = np.append(False, indices_E2[1:, 0] == indices_E2[:-1, 0])
    rest_UV = sparse.BCOO(
        (weights_E[is_rest_E], W.matrix_UV.indices[is_rest_E]),
        shape=W.matrix_UV.shape,
        indices_sorted=True,
        unique_indices=True,
    )
    return W.to_teacher.first.ids_RJ[:, 0], W.to_teacher.first.weights_RJ[:, 0], rest_UV


FORMS = {
    "BCOO product": bcoo,
    "gather, sorted segment_sum": segment_sum,
    "BCOO, blocks of 16": functools.partial(blocks, width=16),
    "BCOO, blocks of 64": functools.partial(blocks, width=64),
    "first entries by a gather, rest BCOO": gather_and_bcoo,
    "ops.project": project,
}


def compiled(form: str, *, gradient: bool):
    """A product, or that of its gradient."""
    function = FORMS[form]
    if not gradient:
        return jax.jit(function)

    @jax.jit
    def backward(up_UN, W):
        num_rows = (W[-1] if isinstance(W, tuple) else W.matrix_UV).shape[1]
        probs_VN = jnp.zeros((num_rows, up_UN.shape[1]))
        return jax.vjp(lambda probs_VN: function(probs_VN, W), probs_VN)[1](up_UN)[0]

    return backward


def bench(W: DeviceProjection, columns: int) -> list[dict[str, Any]]:
    """All forms, forward and backward, at one number of columns."""
    draw = np.random.default_rng(0)
    runs = {}
    for gradient in (False, True):
        num_rows = W.matrix_UV.shape[0 if gradient else 1]
        values = jnp.asarray(draw.random((num_rows, columns), np.float32))
        for form in FORMS:
            tables = first_and_rest(W) if form.startswith("first") else W
            product = compiled(form, gradient=gradient)
            runs[form, gradient] = functools.partial(product, values, tables)
    seconds = {key: [] for key in runs}
    for _ in range(1 + _REPEATS):  # the first compiles
        for key, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            seconds[key].append(time.perf_counter() - start)
    return [
        {
            "form": form,
            "columns": columns,
            "forward_ms": 1e3 * min(seconds[form, False][1:]),
            "backward_ms": 1e3 * min(seconds[form, True][1:]),
        }
        for form in FORMS
    ]


def keep_memory() -> None:
    """Keep what was freed in the process: a walk's loop gets its memory once as well."""
    libc, mmap_max, trim_threshold = ctypes.CDLL(None), -4, -1
    libc.mallopt(mmap_max, 0)
    libc.mallopt(trim_threshold, 2**31 - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--pairs", nargs="+", default=["llama3:qwen3", "llama3:smollm2-135m"])
    parser.add_argument("--columns", nargs="+", type=int, default=[64, 128, 256])
    options = parser.parse_args()
    keep_memory()
    rows = []
    for pair in options.pairs:
        student, teacher = (ByteTokenizer.load(f"asset:{name}") for name in pair.split(":"))
        W = to_device(build_projection(student, teacher))
        for columns in options.columns:
            rows += [{"pair": pair, **row} for row in bench(W, columns)]
            for row in [] if options.json else rows[-len(FORMS) :]:
                print(
                    f"{pair:20s} {columns:4d} {row['form']:38s} "
                    f"{row['forward_ms']:7.1f} ms {row['backward_ms']:7.1f} ms",
                    flush=True,
                )
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
