"""The mesh: its axes, and asking for too much."""

import json

import pytest
from jax.sharding import AxisType

from xtoken_jax.errors import UsageError
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.train.mesh import check_models, make_mesh


def test_axes_are_named_and_left_to_the_compiler():
    mesh = make_mesh(data=2, fsdp=1, tensor=4)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "tensor": 4}
    assert set(mesh.axis_types) == {AxisType.Auto}


def test_fewer_devices_than_there_are_may_be_used():
    assert make_mesh(data=1, fsdp=1, tensor=1).size == 1


def test_more_devices_than_there_are_is_an_error():
    with pytest.raises(UsageError, match="needs 16 devices, got 8"):
        make_mesh(data=4, fsdp=2, tensor=2)


class TestModels:
    @pytest.fixture
    def model(self, tmp_path):
        """A directory with a config.json alone: width 6, feed-forward 10, vocabulary 7."""
        sizes = {"hidden_size": 6, "ffn_size": 10, "num_heads": 3, "num_kv_heads": 1}
        architecture = Architecture(vocab_size=7, num_layers=1, head_dim=2, tied=True, **sizes)
        (tmp_path / "config.json").write_text(json.dumps(architecture.to_hf()))
        return str(tmp_path)

    def test_what_divides_or_can_be_padded_or_replicated_is_held(self, model):
        check_models({"student.model": model}, make_mesh(data=2, fsdp=2, tensor=2))

    @pytest.mark.parametrize(
        ("fsdp", "tensor", "told"),
        [
            (4, 1, r"axis 'fsdp' must divide dimension D, got 4 devices and size 6"),
            (1, 4, r"axis 'tensor' must divide dimension F, got 4 devices and size 10"),
        ],
    )
    def test_what_does_not_divide_is_named(self, model, fsdp, tensor, told):
        mesh = make_mesh(data=1, fsdp=fsdp, tensor=tensor)
        with pytest.raises(UsageError, match=rf"`mesh` cannot hold `student\.model` .*{told}"):
            check_models({"student.model": model}, mesh)
