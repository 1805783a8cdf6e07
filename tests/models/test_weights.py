import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.architecture import Architecture
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.sharding import batch_sharding
from xtoken_jax.models.weights import load_model, save_model

EVERY_TENSOR = {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True}


@pytest.fixture
def saved(tiny_decoder, tmp_path):
    """A random model and the directory it was saved to."""

    def make(**changes):
        model = tiny_decoder(**changes)
        save_model(model, tmp_path / "model")
        return model, tmp_path / "model"

    return make


def assert_equal_parameters(model, other):
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model), nnx.state(other))


def rewrite(directory, change):
    """Apply `change` to the dict of tensors in a model directory."""
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("changes", [EVERY_TENSOR, {}], ids=["every tensor", "tied"])
def test_export_and_reload_are_bit_equal(saved, changes):
    model, directory = saved(**changes)
    loaded = load_model(directory)
    assert loaded.architecture == model.architecture
    assert_equal_parameters(model, loaded)


def test_mesh_shards_pads_and_exports_the_same(saved, tmp_path, mesh_222, batch, logits_of):
    model, directory = saved(**EVERY_TENSOR)
    sharded = load_model(directory, mesh=mesh_222)
    assert sharded.unembedding_VD.shape == (66, 32)
    assert sharded.unembedding_VD.sharding.shard_shape((66, 32)) == (33, 16)
    assert sharded.layers.down_FD[...].sharding.shard_shape((3, 48, 32)) == (3, 24, 16)
    with jax.set_mesh(mesh_222):
        logits_BSV = logits_of(sharded, *jax.device_put(batch, batch_sharding(mesh_222)))
    np.testing.assert_allclose(logits_BSV, logits_of(model, *batch), rtol=1e-4, atol=1e-4)
    save_model(sharded, tmp_path / "again")
    assert_equal_parameters(model, load_model(tmp_path / "again"))


@pytest.mark.parametrize("model_type", ["phi3", "gemma3_text"])
def test_blocks_of_fused_tensors(saved, tmp_path, mesh_222, model_type):
    """A device's part of a projection is cut out of the tensor that holds several."""
    model, directory = saved(model_type=model_type)
    sharded = load_model(directory, mesh=mesh_222)
    assert sharded.layers.gate_DF[...].sharding.shard_shape((3, 32, 48)) == (3, 16, 24)
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(np.asarray(y)[tuple(map(slice, x.shape))], x),
        nnx.state(model),
        nnx.state(sharded),
    )
    save_model(sharded, tmp_path / "again")
    assert_equal_parameters(model, load_model(tmp_path / "again"))


def test_transformers_loads_an_export(saved, torch, logits_of, batch):
    from transformers import AutoModelForCausalLM

    model, directory = saved(**EVERY_TENSOR, head_dim=16, eos_token_id=[5, 6])
    reference = AutoModelForCausalLM.from_pretrained(directory)
    assert reference.generation_config.eos_token_id == [5, 6]
    with safe_open(directory / "model.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt"}  # transformers 4 asks for it
    ids_BS, positions_BS, _ = batch
    with torch.no_grad():
        expected_BSV = reference(torch.tensor(np.asarray(ids_BS))).logits.numpy()
    logits_BSV = logits_of(model, ids_BS, positions_BS, jnp.ones_like(ids_BS))
    np.testing.assert_allclose(logits_BSV, expected_BSV, rtol=1e-4, atol=1e-4)


def test_tokenizer_files_travel(tiny_decoder, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer" / "notes.txt").write_text("not a tokenizer file")
    save_model(tiny_decoder(), tmp_path / "model", tokenizer_dir=tmp_path / "tokenizer")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]


@pytest.mark.parametrize("file_dtype", [ml_dtypes.bfloat16, np.float16])
def test_half_precision_files(saved, file_dtype):
    model, directory = saved()

    def halve(tensors):
        tensors.update({key: tensor.astype(file_dtype) for key, tensor in tensors.items()})

    rewrite(directory, halve)
    loaded = load_model(directory)
    expected = np.asarray(model.layers.up_DF[...]).astype(file_dtype).astype(np.float32)
    np.testing.assert_array_equal(loaded.layers.up_DF[...], expected)
    half = load_model(directory, param_dtype=jnp.bfloat16)
    assert half.embedding_VD[...].dtype == jnp.bfloat16


def test_half_precision_export(saved, tmp_path):
    _, directory = saved()
    half = load_model(directory, param_dtype=jnp.bfloat16)
    save_model(half, tmp_path / "half")
    assert json.loads((tmp_path / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    assert_equal_parameters(half, load_model(tmp_path / "half", param_dtype=jnp.bfloat16))


def split_into_two_files(directory):
    tensors = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    weight_map = {key: f"model-{i % 2}.safetensors" for i, key in enumerate(sorted(tensors))}
    for name in set(weight_map.values()):
        part = {key: tensors[key] for key, file in weight_map.items() if file == name}
        save_file(part, directory / name)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))


def test_indexed_files(saved):
    model, directory = saved()
    split_into_two_files(directory)
    assert_equal_parameters(model, load_model(directory))
    (directory / "model-1.safetensors").unlink()
    with pytest.raises(XTokenError, match=r"index\.json: .*model-1\.safetensors"):
        load_model(directory)


def test_shards(saved, tmp_path, torch):
    from transformers import AutoModelForCausalLM

    model, directory = saved(**EVERY_TENSOR)
    save_model(model, tmp_path / "sharded", max_shard_bytes=10_000)
    names = {path.name for path in (tmp_path / "sharded").glob("*.safetensors")}
    num_bytes = sum(array.nbytes for array in jax.tree.leaves(nnx.state(model)))
    assert len(names) >= num_bytes / 10_000
    assert f"model-00001-of-{len(names):05d}.safetensors" in names
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == names
    assert index["metadata"]["total_size"] == num_bytes
    assert_equal_parameters(model, load_model(tmp_path / "sharded"))
    whole, sharded = (
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (directory, tmp_path / "sharded")
    )
    assert all(torch.equal(whole[key], sharded[key]) for key in whole)
    save_model(model, tmp_path / "sharded")  # what is replaced goes, shards and index too
    assert sorted(path.name for path in (tmp_path / "sharded").iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]


MEASURE = """
import re, sys
from pathlib import Path
import jax
from xtoken_jax.models.weights import load_model

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

load_model(sys.argv[2])  # what libraries take the first time is not the loading's
Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = kilobytes("VmRSS")
model = load_model(sys.argv[1])
print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_loading_holds_no_second_copy(tmp_path, tiny_config, tiny_decoder):
    save_model(tiny_decoder(), tmp_path / "tiny")
    config = tiny_config(vocab_size=8192, hidden_size=512, intermediate_size=2048)
    config |= {"num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8}
    model = nnx.eval_shape(lambda: Decoder(Architecture.from_hf(config), rngs=nnx.Rngs(0)))
    state = nnx.state(model)
    nnx.update(model, jax.tree.map(lambda x: jnp.asarray(np.full(x.shape, 0.5, x.dtype)), state))
    save_model(model, tmp_path / "model", max_shard_bytes=2**26)
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "model", tmp_path / "tiny"],
        capture_output=True,
        text=True,
        check=True,
    )
    num_bytes = sum(x.size * 4 for x in jax.tree.leaves(state))
    largest = 8192 * 512 * 4
    assert num_bytes < 1024 * int(process.stdout) < largest + 1.2 * num_bytes


def test_some_layers(saved):
    model, directory = saved(attention_bias=True)
    student = load_model(directory, layers=[2, 0])
    assert student.architecture.num_layers == 2
    for name in ("query_DHE", "ffn_norm_D", "key_bias_GE"):
        whole_L, chosen_L = (getattr(side.layers, name)[...] for side in (model, student))
        np.testing.assert_array_equal(chosen_L, whole_L[np.asarray([2, 0])])
    for layers in ([], [3], [-1]):
        with pytest.raises(XTokenError, match=r"`layers` must name some of the layers 0\.\.2"):
            load_model(directory, layers=layers)


def test_bad_tensors_are_named_at_once(saved):
    _, directory = saved()

    def spoil(tensors):
        del tensors["model.norm.weight"]
        del tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.3.mlp.up_proj.weight"] = np.zeros((48, 32), np.float32)
        tensors["model.embed_tokens.weight"] = np.zeros((64, 32), np.float32)

    rewrite(directory, spoil)
    with pytest.raises(XTokenError) as caught:
        load_model(directory)
    message = str(caught.value)
    assert "4 bad tensors" in message
    assert "missing `model.norm.weight`" in message
    assert "missing `model.layers.1.mlp.up_proj.weight`" in message
    assert "unexpected `model.layers.3.mlp.up_proj.weight`" in message
    assert "`model.embed_tokens.weight` must have shape [65, 32], got [64, 32]" in message


def test_tied_head_in_the_file_must_be_the_embedding(saved):
    model, directory = saved()

    def repeat(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)

    def differ(tensors):
        tensors["lm_head.weight"] = tensors["lm_head.weight"] + 1

    rewrite(directory, repeat)
    assert_equal_parameters(model, load_model(directory))
    rewrite(directory, differ)
    with pytest.raises(XTokenError, match=r"unexpected `lm_head\.weight`"):
        load_model(directory)


def test_directories_that_hold_no_model(saved, tmp_path):
    _, directory = saved()
    with pytest.raises(XTokenError, match="absent: no such directory; name a Hugging Face"):
        load_model(tmp_path / "absent")
    (directory / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0broken")
    with pytest.raises(XTokenError, match=r"model\.safetensors: is not a readable safetensors"):
        load_model(directory)
    (directory / "model.safetensors").unlink()
    with pytest.raises(XTokenError, match="has no safetensors weights"):
        load_model(directory)
    (directory / "config.json").write_text("{")
    with pytest.raises(XTokenError, match=r"config\.json: must be JSON"):
        load_model(directory)
    (directory / "config.json").unlink()
    with pytest.raises(XTokenError, match=r"model: has no config\.json"):
        load_model(directory)


def test_a_failed_save_leaves_the_earlier_model(saved, tiny_decoder, tmp_path):
    model, directory = saved()
    (tmp_path / "empty").mkdir()
    with pytest.raises(XTokenError, match="has no tokenizer files"):
        save_model(tiny_decoder(mlp_bias=True), directory, tokenizer_dir=tmp_path / "empty")
    assert_equal_parameters(model, load_model(directory))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "model"]


def test_saving_replaces_a_model_and_nothing_else(saved, tiny_decoder):
    _, directory = saved()
    other = tiny_decoder(mlp_bias=True)
    save_model(other, directory)
    assert_equal_parameters(other, load_model(directory))
    (directory / "thesis.txt").write_text("three years")
    with pytest.raises(XTokenError, match=r"holds thesis\.txt"):
        save_model(other, directory)
    assert (directory / "thesis.txt").read_text() == "three years"
    shutil.rmtree(directory)
    directory.write_text("a file")
    with pytest.raises(XTokenError, match="model: must be free, empty or a model directory"):
        save_model(other, directory)
