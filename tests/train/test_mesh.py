"""The mesh: its axes, and asking for too much."""

import pytest
from jax.sharding import AxisType

from xtoken_jax.errors import UsageError
from xtoken_jax.train.mesh import make_mesh


def test_axes_are_named_and_left_to_the_compiler():
    mesh = make_mesh(data=2, fsdp=1, tensor=4)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "tensor": 4}
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_fewer_devices_than_there_are_may_be_used():
    assert make_mesh(data=1, fsdp=1, tensor=1).size == 1


def test_more_devices_than_there_are_is_an_error():
    with pytest.raises(UsageError, match="needs 16 devices, got 8"):
        make_mesh(data=4, fsdp=2, tensor=2)
