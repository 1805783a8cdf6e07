import dataclasses
import importlib.util
import json

import jax
import jaxtyping
import pytest

from tests.tiny import tiny_config, with_teacher
from xtoken_jax.cli.plan import as_dict, plan_table
from xtoken_jax.config import MeshConfig, PlannedModel
from xtoken_jax.errors import UsageError
from xtoken_jax.train.chips import CHIPS
from xtoken_jax.train.plan import make_plan


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Two planned models whose directories hold a tokenizer and no weights."""
    folder = tmp_path_factory.mktemp("plan")
    config = tiny_config(
        folder, data={"batch_size": 8}, evaluation={"batch_size": 8}, mesh={"fsdp": 4, "tensor": 2}
    )
    planning = {}
    for name in ("student", "teacher"):
        model = folder / f"{name}-model"
        (model / "model.safetensors").unlink()
        content = json.loads((model / "config.json").read_text())
        planning[f"hub/{name}"] = PlannedModel(config=content, tokenizer=str(model))
    config = with_teacher(config, model="hub/teacher")
    student = dataclasses.replace(config.student, model="hub/student")
    return dataclasses.replace(config, student=student, planning=planning)


@pytest.fixture(scope="module")
def plan(config):
    # Shapes stand in the places where annotations want arrays.
    jaxtyping.config.update("jaxtyping_disable", True)
    yield make_plan(config, "cpu")
    jaxtyping.config.update("jaxtyping_disable", False)


def test_the_step_compiles_without_weights_or_a_hub(config, plan):
    assert plan.devices == jax.device_count() == 8
    # A quarter of the state at least is on a device, and all of it takes the place of the old.
    num_parameters = 400 * 32  # of the embedding alone
    assert plan.argument_bytes > 12 * num_parameters / 8
    assert 0 < plan.alias_bytes <= plan.output_bytes
    assert plan.peak_bytes >= plan.argument_bytes
    assert plan.step_tokens == config.data.batch_size * config.data.student_length
    assert plan.flops > 6 * num_parameters * plan.step_tokens / 8
    assert plan.fits is None
    assert plan.seconds() == {}


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `plan`")
def test_the_step_compiles_for_a_tpu(config):
    jaxtyping.config.update("jaxtyping_disable", True)
    plan = make_plan(config, "v5e:2x4")
    jaxtyping.config.update("jaxtyping_disable", False)
    assert plan.devices == 8
    assert plan.fits is True
    assert plan.cost is not None
    assert plan.cost.cycles > 0
    assert plan.cost.unknown_loops == 0


def test_memory_and_time_against_a_chip(plan):
    small = dataclasses.replace(CHIPS["v5e"], hbm_bytes=plan.peak_bytes - 1)
    assert dataclasses.replace(plan, chip=small).fits is False
    assert plan.cost is not None
    cost = dataclasses.replace(plan.cost, unknown_loops=2)
    planned = dataclasses.replace(plan, chip=CHIPS["v5e"], cost=cost)
    assert planned.fits is True
    seconds = planned.seconds()
    assert seconds["products"] == plan.flops / 197e12
    assert seconds["step"] == max(seconds["memory"], seconds["products"]) + seconds["collectives"]
    told = as_dict(planned, "v5e:4x2")
    assert told["tokens_per_second"] == plan.step_tokens / seconds["step"]
    assert told["bytes"]["peak"] == plan.peak_bytes
    json.dumps(told)
    assert plan_table(planned, "x.yaml", "v5e:4x2").row_count == 16
    unread = dataclasses.replace(planned, cost=None)
    assert unread.seconds() == {"products": plan.flops / 197e12}
    assert as_dict(unread, "v5e:4x2")["tokens_per_second"] is None
    assert plan_table(unread, "x.yaml", "v5e:4x2").row_count == 9


def test_the_mesh_must_be_the_topology(config):
    smaller = dataclasses.replace(config, mesh=MeshConfig(fsdp=4))
    with pytest.raises(UsageError, match="`mesh` must be over all 8 devices of cpu, got 4"):
        make_plan(smaller, "cpu")
