import jax
import jax.numpy as jnp
import pytest

from xtoken_jax.train.hlo_cost import product_flops, program_cost

# A loop of three passes over eight, in the form that the compiler for TPU prints.
_PROGRAM = """HloModule jit_step

%sliced (param_0: f32[8,16], param_1: s32[]) -> f32[16] {
  %param_0 = f32[8,16]{1,0:T(8,128)} parameter(0)
  %param_1 = s32[]{:T(128)} parameter(1)
  ROOT %dynamic-slice.1 = f32[1,16]{1,0} dynamic-slice(%param_0, %param_1)
}

%body (state: (s32[], f32[8,16], f32[64])) -> (s32[], f32[8,16], f32[64]) {
  %state = (s32[]{:T(128)}, f32[8,16]{1,0:T(8,128)}, /*index=2*/f32[64]{0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%state), index=0
  %stack = f32[8,16]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %row = f32[16]{0:T(128)} fusion(%stack, %i), calls=%sliced, config={"estimated_cycles":"100"}
  %all = f32[64]{0} all-gather(%row), dimensions={0}
  ROOT %next = (s32[]{:T(128)}, f32[8,16]{1,0:T(8,128)}, f32[64]{0}) tuple(%i, %stack, %all)
}

%condition (state.1: (s32[], f32[8,16], f32[64])) -> pred[] {
  %limit = s32[]{:T(128)} constant(3)
  %state.1 = (s32[]{:T(128)}, f32[8,16]{1,0:T(8,128)}, f32[64]{0}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

ENTRY %main (x: (s32[], f32[8,16], f32[64])) -> bf16[64] {
  %x = (s32[]{:T(128)}, f32[8,16]{1,0:T(8,128)}, f32[64]{0}) parameter(0)
  %loop = (s32[], f32[8,16]{1,0:T(8,128)}, f32[64]{0}) while(%x), condition=%condition, body=%body
  %out = f32[64]{0} get-tuple-element(%loop), index=2
  ROOT %small = bf16[64]{0:T(128)S(1)} convert(%out), backend_config={"estimated_cycles":"7"}
}
"""


def test_a_loop_counts_as_often_as_it_runs():
    cost = program_cost(_PROGRAM)
    assert cost.cycles == 3 * 100 + 7
    assert cost.collective_bytes == {"all-gather": 3 * 64 * 4}
    assert cost.unknown_loops == 0


def test_bytes_are_those_of_slices_and_not_of_what_stays_on_the_chip():
    row, index, gathered = 16 * 4, 4, 64 * 4
    fusion, collective = row + row + index, row + gathered
    # The last result has S(1): it stays on the chip.
    assert program_cost(_PROGRAM).num_bytes == 3 * (fusion + collective) + gathered


def test_a_loop_without_a_limit_is_counted_once_and_said_so():
    cost = program_cost(_PROGRAM.replace("constant(3)", "parameter(1)"))
    assert cost.cycles == 107
    assert cost.unknown_loops == 1


def test_products_inside_scan_remat_and_branches():
    weight, x = jnp.ones((5, 7, 7)), jnp.ones((3, 7))

    def loss(weight, x):
        def layer(x, weight):
            return jnp.tanh(x @ weight), None

        return jax.lax.scan(jax.checkpoint(layer), x, weight)[0].sum()

    one = 2 * 3 * 7 * 7
    forward = jax.make_jaxpr(loss)(weight, x)
    assert product_flops(forward.jaxpr) == 5 * one
    both = jax.make_jaxpr(jax.grad(loss))(weight, x)
    # Forward, forward again, and the gradients of both factors.
    assert product_flops(both.jaxpr) == 5 * 4 * one
    branch = jax.make_jaxpr(
        lambda x: jax.lax.cond(x.sum() > 0, lambda x: x @ x.T, lambda x: x[:, :3], x)
    )(x)
    assert product_flops(branch.jaxpr) == 2 * 3 * 3 * 7


def test_the_text_of_a_real_program_is_read():
    compiled = jax.jit(lambda x: jax.lax.fori_loop(0, 9, lambda _, x: jnp.sin(x) @ x, x)).lower(
        jax.ShapeDtypeStruct((8, 8), jnp.float32)
    )
    cost = program_cost(compiled.compile().as_text())
    assert cost.num_bytes >= 9 * 2 * 8 * 8 * 4
    assert cost.cycles == pytest.approx(0)
