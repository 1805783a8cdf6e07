import jax
import jax.numpy as jnp
import pytest

from xtoken_jax.config import check_config
from xtoken_jax.errors import XTokenError
from xtoken_jax.train.memory import memory_advice


def config(**changes):
    content = {
        "run_dir": "runs/x",
        "student": {"model": "s"},
        "teachers": {"qwen3": {"model": "t"}},
        "data": {"train": [{"kind": "text", "path": "*.txt"}], "student_length": 512},
        "mesh": {"fsdp": 4},
    }
    return check_config(content | changes, name="test")


def complaint(raised, **changes):
    with pytest.raises(XTokenError) as told, memory_advice(config(**changes)):
        raise raised
    assert "\n" not in str(told.value)
    return str(told.value)


def test_what_a_device_says_becomes_advice():
    with pytest.raises(XTokenError) as told, memory_advice(config()):
        jnp.zeros(1 << 44).block_until_ready()
    assert str(told.value) == (
        "out of device memory (wanted 65536.00 GiB more) with `data.batch_size` 8, "
        "`data.student_length` 512, `teachers.qwen3.length` 1024 on a mesh of data=1, fsdp=4, "
        "tensor=1; set `student.remat` to full (is dots); lower `loss.block_tokens` (is 4096); "
        "raise `optim.accumulation_steps` (is 1); lower `data.batch_size` or the lengths; raise "
        "`mesh.fsdp` or `mesh.tensor` where there are more devices"
    )


def test_what_compilers_say():
    gpu = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes."
    assert "(wanted 32.00 GiB more)" in complaint(jax.errors.JaxRuntimeError(gpu))
    tpu = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 20.52G of 15.75G hbm. Exceeded hbm capacity by 4.77G."
    )
    assert "(Used 20.52G of 15.75G)" in complaint(jax.errors.JaxRuntimeError(tpu))


def test_a_knob_that_is_turned_already_is_not_named():
    message = complaint(
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED"),
        student={"model": "s", "remat": "full"},
        loss={"block_tokens": 128},
        optim={"accumulation_steps": 2},
    )
    assert "accumulation_steps" not in message
    assert "remat" not in message
    assert "block_tokens" not in message


def test_other_errors_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory_advice(config()):
        raise jax.errors.JaxRuntimeError("INTERNAL: a kernel failed")
    with pytest.raises(ValueError, match="RESOURCE_EXHAUSTED"), memory_advice(config()):
        raise ValueError("RESOURCE_EXHAUSTED")  # as TensorStore says of a full disk
