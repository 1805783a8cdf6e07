"""Tiny models of every kind, on our side and on transformers'."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.sharding import MESH_AXES

TINY_CONFIG = {
    "model_type": "llama",
    "vocab_size": 65,  # odd, so that a mesh pads it
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "initializer_range": 0.2,
    "max_position_embeddings": 256,
}


@pytest.fixture
def tiny_config():
    """A function from changes to the content of a small config.json."""
    return lambda **changes: TINY_CONFIG | changes


@pytest.fixture
def tiny_decoder():
    """A function from config changes and options to a Decoder; biases and norms are random too.

    A change to None leaves the field out.
    """

    def make(*, options=None, **changes) -> Decoder:
        config = {k: v for k, v in (TINY_CONFIG | changes).items() if v is not None}
        architecture = Architecture.from_hf(config)
        options = options or {}
        model = nnx.eval_shape(lambda: Decoder(architecture, rngs=nnx.Rngs(0), **options))
        draw = np.random.default_rng(0)  # NumPy's, because JAX would compile for every shape
        for path, parameter in nnx.iter_graph(model):
            if isinstance(parameter, nnx.Param):
                abstract = parameter.get_value()
                values = 0.2 * draw.normal(size=abstract.shape)
                if "norm" in path[-1] and not architecture.zero_centred_norm:
                    values += 1
                if path[-1].endswith("_VD"):
                    values[architecture.vocab_size :] = 0
                parameter.set_value(jnp.asarray(values, abstract.dtype))
        return model

    return make


@pytest.fixture
def mesh_222():
    """All eight simulated devices, two along every axis."""
    return jax.make_mesh((2, 2, 2), MESH_AXES, axis_types=(jax.sharding.AxisType.Auto,) * 3)


@pytest.fixture
def batch():
    """Ids, positions and segments [4, 24] of one text per row, the last positions padding."""
    ids_BS = np.random.default_rng(0).integers(0, TINY_CONFIG["vocab_size"], (4, 24))
    segment_ids_BS = np.broadcast_to((np.arange(24) < 21)[None], (4, 24))
    positions_BS = np.broadcast_to(np.arange(24)[None], (4, 24))
    return tuple(jnp.asarray(x, jnp.int32) for x in (ids_BS, positions_BS, segment_ids_BS))


@pytest.fixture
def logits_of():
    """A function from a Decoder and a batch to logits of the unpadded vocabulary, in NumPy."""

    @nnx.jit
    def logits_BSV(model, ids_BS, positions_BS, segment_ids_BS):
        return model.logits(model(ids_BS, positions_BS, segment_ids_BS))

    def run(model, *arrays) -> np.ndarray:
        return np.asarray(logits_BSV(model, *arrays))[..., : model.vocab_size]

    return run


@pytest.fixture
def torch():
    """PyTorch, the reference of the parity tests."""
    return pytest.importorskip("torch", reason="parity is measured against transformers' PyTorch")


@pytest.fixture
def saved_hf_model(torch, tmp_path):
    """A function from a config to transformers' random model and the directory it wrote."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()

    def make(config, **options):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), **options)
        model.eval()
        model.requires_grad_(False)
        for name, parameter in model.named_parameters():
            if "bias" in name or "norm" in name:
                torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
        directory = tmp_path / "hf"
        model.save_pretrained(directory)
        return model, directory

    return make
