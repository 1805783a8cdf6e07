import importlib.util

import jax
import pytest

from xtoken_jax.errors import UsageError
from xtoken_jax.train import chips
from xtoken_jax.train.chips import CHIPS, topology_devices


@pytest.mark.parametrize("topology", ["v5e", "4x4", "v9:4x4", "v5e:", ""])
def test_a_topology_that_is_none_is_named_with_the_chips_there_are(topology):
    with pytest.raises(UsageError, match=r"must be CHIP:SHAPE.*v4, v5e, v5p, v6e") as raised:
        topology_devices(topology)
    assert repr(topology) in str(raised.value)


def test_without_libtpu_one_line_names_the_extra(monkeypatch):
    monkeypatch.setattr(chips, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"v5e:4x4 needs libtpu.*xtoken_jax\[plan\]"):
        topology_devices("v5e:4x4")


def test_cpu_stands_for_this_process():
    devices, chip = topology_devices("cpu")
    assert devices == jax.devices()
    assert chip is None


def test_a_core_of_a_chip_has_its_share():
    half = CHIPS["v4"].per_device(2)
    assert half.hbm_bytes == 16e9
    assert half.flops == 137.5e12
    assert half.clock == CHIPS["v4"].clock


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `plan`")
def test_libtpu_knows_the_topologies():
    assert len(topology_devices("v5e:4x4")[0]) == 16
    devices, chip = topology_devices("v5p:2x2x2")
    assert len(devices) == 8
    assert chip == CHIPS["v5p"]
    with pytest.raises(UsageError, match="arrangement of v5e chips"):
        topology_devices("v5e:3x3")
