"""The configs that come with the project."""

import pytest
import yaml

from tests.conftest import REPOSITORY
from xtoken_jax.config import load_config
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.text.assets import ASSETS

_CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))


def test_there_are_configs():
    assert {path.stem for path in _CONFIGS} >= {
        "quickstart",
        "llama1b_qwen3_4b",
        "llama1b_phi4mini",
        "llama1b_phi4mini_llama3b",
    }


@pytest.mark.parametrize("path", _CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_valid_and_says_how_it_is_run(path):
    config = load_config(path)
    assert f"xtoken train configs/{path.name}" in path.read_text(encoding="utf-8")
    models = {config.student.model, *(teacher.model for teacher in config.teachers.values())}
    assert config.planning.keys() <= models
    for planned in config.planning.values():
        assert planned.tokenizer.removeprefix("asset:") in ASSETS
        architecture = Architecture.from_hf(planned.config)
        assert architecture.vocab_size >= 128_000


def test_a_model_is_the_same_in_every_config():
    seen = {}
    for path in _CONFIGS:
        for name, planned in (yaml.safe_load(path.read_text()).get("planning") or {}).items():
            assert seen.setdefault(name, planned) == planned
