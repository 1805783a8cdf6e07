"""This project's losses: fused, and in their plain forms on whole arrays."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from serve import arrays, serve

from xtoken_jax.losses import (
    ModelOutput,
    Objective,
    Tables,
    distillation_sums,
    hybrid_kl,
    uld,
)
from xtoken_jax.ops import Spans, common_set_to_device, to_device
from xtoken_jax.projection import exact_pairs, hybrid_pairs, load_projection


def plain_p_kl(student_NV, teacher_NU, tables, mask_N):
    """P-KL as one would first write it, with a plain product by a BCOO matrix."""
    W = tables.projection
    z_NU = (W.matrix_UV @ jax.nn.softmax(student_NV).T).T
    log_q_NU = jax.nn.log_softmax(jnp.where(W.reachable_U[None, :], teacher_NU, -jnp.inf))
    q_NU = jnp.exp(log_q_NU)
    log_z_NU = jnp.log(jnp.maximum(z_NU, 1e-30))
    kl_N = jnp.where(q_NU > 0, q_NU * (log_q_NU - log_z_NU), 0).sum(axis=1)
    return jnp.where(mask_N, kl_N - 1 + z_NU.sum(axis=1), 0)


def hybrid(student_NV, teacher_NU, tables, mask_N):
    """The library's GOLD, or H-KL."""
    return hybrid_kl(student_NV, teacher_NU, tables.common, mask_N)


def sorted_whole(student_NV, teacher_NU, tables, mask_N):
    """The library's ULD, of the tokenizers' columns."""
    V, U = tables.projection.num_student_tokens, tables.projection.num_teacher_tokens
    return uld(student_NV[:, :V], teacher_NU[:, :U], mask_N)


# A loss is one entry of each: what `distillation_sums` is asked for, and the plain form on the
# logits of the whole batch. Chunks have one token on both sides, so "first" does as the peers do.
FUSED = {
    "p_kl": Objective(chunk_merge="first"),
    "p_kl_chain_rule": Objective(),
    "gold": Objective(loss="gold", chunk_merge="first"),
    "h_kl": Objective(loss="h_kl", chunk_merge="first"),
    "uld": Objective(loss="uld", chunk_merge="first"),
}
PLAIN = {
    "p_kl": plain_p_kl,
    "p_kl_chain_rule": plain_p_kl,
    "gold": hybrid,
    "h_kl": hybrid,
    "uld": sorted_whole,
}


def tables_of(case: dict[str, Any]) -> Tables:
    """W and the common set of a case, on the device."""
    projection = load_projection(case["projection"])
    sizes = {name: case[name] for name in ("student_vocab_size", "teacher_vocab_size")}
    pairs = {"gold": exact_pairs, "h_kl": hybrid_pairs}.get(case["loss"])
    common = None
    if pairs is not None:
        common = common_set_to_device(
            pairs(projection),
            num_student_tokens=projection.num_student_tokens,
            num_teacher_tokens=projection.num_teacher_tokens,
            **sizes,
        )
    return Tables(to_device(projection, **sizes), common)


def fused(case, learned, held, tables):
    """Mean loss of the chunks, as training calls it."""
    position_1N = jnp.arange(case["tokens"])[None, :]

    def output(hidden_ND, unembedding_VD=None):  # without, they are logits
        return ModelOutput(hidden_ND[None], unembedding_VD, position_1N)

    sums = distillation_sums(
        output(*learned),
        output(*held),
        Spans(*(position_1N,) * 4, position_1N > 0),
        tables,
        None,  # the peers compute no cross-entropy
        FUSED[case["loss"]],
        block_tokens=case["block_tokens"],
    )
    return sums.distillation / sums.num_chunks


def plain(case, learned, held, tables):
    """Mean loss, of the logits of the whole batch at once."""
    if case["inputs"] == "hidden":
        learned, held = ((hidden_ND @ rows_VD.T,) for hidden_ND, rows_VD in (learned, held))
    loss_N = PLAIN[case["loss"]](*learned, *held, tables, _scored(case))
    return loss_N.sum() / (case["tokens"] - 1)


def _scored(case):
    # In the fused form nothing predicts the first chunk.
    return jnp.arange(case["tokens"]) < case["tokens"] - 1


FORMS = {
    ("fused", "hidden"): fused,
    ("fused", "logits"): fused,
    ("plain", "hidden"): plain,
    ("plain", "logits"): plain,
}


def build(case: dict[str, Any]) -> tuple[Callable[[], float], dict[str, Any]]:
    """Compile a loss with its gradient for the student's logits, or hidden states and rows."""
    form = FORMS[case["form"], case["inputs"]]
    given = [jnp.asarray(array) for array in arrays(case)]
    learned, held = given[: len(given) // 2], given[len(given) // 2 :]
    inputs = (learned, held, tables_of(case))
    function = jax.value_and_grad(lambda *inputs: form(case, *inputs))
    compiled = jax.jit(function).lower(*inputs).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    if temporary > case["limit_bytes"]:
        raise MemoryError(f"needs {temporary / 1e9:.1f} GB of temporary memory")
    return lambda: float(jax.block_until_ready(compiled(*inputs))[0]), {"temp_bytes": temporary}


if __name__ == "__main__":
    serve(build)
