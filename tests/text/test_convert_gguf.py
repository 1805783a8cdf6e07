"""GGUF to Hugging Face: a tiny file written here, and the real SmolLM2."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoTokenizer

from xtoken_jax.errors import XTokenError
from xtoken_jax.text.convert_gguf import convert_gguf

LAYERS, HIDDEN, HEADS, KV_HEADS, FFN = 2, 64, 4, 2, 96
HEAD_DIM = HIDDEN // HEADS
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "Ġ", "1", "2", "ab", "Ġab"]
MERGES = ["a b", "Ġ ab"]
CHAT_TEMPLATE = "{{ messages[0]['content'] }}"


def permute(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Hugging Face rows to llama.cpp's, row by row: (i, i + half) become neighbours."""
    head_dim = len(weight) // num_heads
    half = head_dim // 2
    order = [
        h * head_dim + i + s * half for h in range(num_heads) for i in range(half) for s in (0, 1)
    ]
    return weight[order]


def random_weights(*, tied: bool) -> dict[str, np.ndarray]:
    shapes = {"model.embed_tokens.weight": (len(TOKENS), HIDDEN), "model.norm.weight": (HIDDEN,)}
    if not tied:
        shapes["lm_head.weight"] = (len(TOKENS), HIDDEN)
    for layer in range(LAYERS):
        block = f"model.layers.{layer}"
        shapes |= {
            f"{block}.input_layernorm.weight": (HIDDEN,),
            f"{block}.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
            f"{block}.self_attn.k_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{block}.self_attn.v_proj.weight": (KV_HEADS * HEAD_DIM, HIDDEN),
            f"{block}.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{block}.post_attention_layernorm.weight": (HIDDEN,),
            f"{block}.mlp.gate_proj.weight": (FFN, HIDDEN),
            f"{block}.mlp.up_proj.weight": (FFN, HIDDEN),
            f"{block}.mlp.down_proj.weight": (HIDDEN, FFN),
        }
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def gguf_name(name: str) -> str:
    mapping = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    return mapping.get_name(name, try_suffixes=(".weight",))


def write_gguf(
    path: Path,
    weights: dict[str, np.ndarray],
    *,
    architecture: str = "llama",
    pre: str = "smollm",
    rotated: int = HEAD_DIM,
    extra=None,
) -> Path:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100_000.0)
    writer.add_rope_dimension_count(rotated)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    if extra:
        extra(writer)
    for name, weight in weights.items():
        if name.endswith("q_proj.weight"):
            weight = permute(weight, HEADS)
        elif name.endswith("k_proj.weight"):
            weight = permute(weight, KV_HEADS)
        writer.add_tensor(gguf_name(name), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def converted(tmp_path) -> Path:
    source = write_gguf(tmp_path / "tiny.gguf", random_weights(tied=True))
    convert_gguf(source, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize("tied", [True, False])
def test_weights_come_back_bit_for_bit(tmp_path, tied):
    weights = random_weights(tied=tied)
    convert_gguf(write_gguf(tmp_path / "tiny.gguf", weights), tmp_path / "out")
    loaded = load_file(tmp_path / "out" / "model.safetensors")
    assert loaded.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(loaded[name], weight, err_msg=name)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["tie_word_embeddings"] == tied


def test_quantised_weights_are_dequantised(tmp_path):
    def add_quantised(writer):
        packed = gguf.quants.quantize(weight, gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor("blk.0.ffn_up.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)

    weights = random_weights(tied=True)
    weight = weights.pop("model.layers.0.mlp.up_proj.weight")
    convert_gguf(write_gguf(tmp_path / "q.gguf", weights, extra=add_quantised), tmp_path / "out")
    loaded = load_file(tmp_path / "out" / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert loaded.dtype == np.float32
    np.testing.assert_allclose(loaded, weight, atol=np.abs(weight).max() / 127)
    assert not np.array_equal(loaded, weight)


def test_config_is_what_transformers_reads(converted):
    config = json.loads((converted / "config.json").read_text())
    assert config["model_type"] == "llama"
    assert config["rms_norm_eps"] == 1e-5  # not 9.999999747e-06, its float32
    assert config["rope_theta"] == 100_000.0
    assert (config["num_attention_heads"], config["num_key_value_heads"]) == (HEADS, KV_HEADS)
    assert (config["head_dim"], config["vocab_size"]) == (HEAD_DIM, len(TOKENS))
    generation = json.loads((converted / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def test_tokenizer_comes_along(converted):
    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.tokenize("ab ab12") == ["ab", "Ġab", "1", "2"]
    assert tokenizer.tokenize("a<|im_end|>") == ["a", "<|im_end|>"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.chat_template == CHAT_TEMPLATE


GEMMA_TOKENS = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<0x41>", "\u2581", "a", "b"]
GEMMA_TOKENS += ["ab", "\u2581ab", "1"]
GEMMA_TYPES = [3, 3, 3, 2, 4, 6, 1, 1, 1, 1, 1, 1]  # of sentencepiece_model.proto


def gemma_weights() -> dict[str, np.ndarray]:
    head_dim = 32  # not hidden / heads, as in Gemma
    block = {
        "input_layernorm": (HIDDEN,),
        "self_attn.q_proj": (HEADS * head_dim, HIDDEN),
        "self_attn.k_proj": (KV_HEADS * head_dim, HIDDEN),
        "self_attn.v_proj": (KV_HEADS * head_dim, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HEADS * head_dim),
        "self_attn.q_norm": (head_dim,),
        "self_attn.k_norm": (head_dim,),
        "post_attention_layernorm": (HIDDEN,),
        "pre_feedforward_layernorm": (HIDDEN,),
        "post_feedforward_layernorm": (HIDDEN,),
        "mlp.gate_proj": (FFN, HIDDEN),
        "mlp.up_proj": (FFN, HIDDEN),
        "mlp.down_proj": (HIDDEN, FFN),
    }
    shapes = {"embed_tokens": (len(GEMMA_TOKENS), HIDDEN), "norm": (HIDDEN,)}
    shapes |= {f"layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in block.items()}
    rng = np.random.default_rng(0)
    # Multiples of 1/64, so that adding one and taking it away again loses nothing.
    return {
        f"model.{name}.weight": rng.integers(-64, 65, shape).astype(np.float32) / 64
        for name, shape in shapes.items()
    }


def write_gemma(path: Path, weights: dict[str, np.ndarray], extra=None) -> Path:
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_key_length(32)
    writer.add_value_length(32)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_sliding_window(8)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(GEMMA_TOKENS)
    writer.add_token_types(GEMMA_TYPES)
    writer.add_token_scores([-float(index) for index in range(len(GEMMA_TOKENS))])
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_add_space_prefix(False)
    if extra:
        extra(writer)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, LAYERS)
    for name, weight in weights.items():
        stored = weight + 1 if name.endswith("norm.weight") else weight
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class TestGemma3:
    def test_weights_come_back_bit_for_bit(self, tmp_path):
        weights = gemma_weights()
        convert_gguf(write_gemma(tmp_path / "tiny.gguf", weights), tmp_path / "out")
        loaded = load_file(tmp_path / "out" / "model.safetensors")
        assert loaded.keys() == weights.keys()
        for name, weight in weights.items():
            np.testing.assert_array_equal(loaded[name], weight, err_msg=name)

    def test_config_is_what_transformers_reads(self, tmp_path):
        convert_gguf(write_gemma(tmp_path / "tiny.gguf", gemma_weights()), tmp_path / "out")
        config = AutoConfig.from_pretrained(tmp_path / "out")
        assert config.model_type == "gemma3_text"
        assert (config.head_dim, config.query_pre_attn_scalar, config.sliding_window) == (32, 32, 8)
        assert config.layer_types == ["sliding_attention"] * LAYERS  # every sixth reads all
        assert config.tie_word_embeddings

    def test_tokenizer_comes_along(self, tmp_path):
        convert_gguf(write_gemma(tmp_path / "tiny.gguf", gemma_weights()), tmp_path / "out")
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
        assert tokenizer.tokenize("ab ab1A") == ["ab", "\u2581ab", "1", "<0x41>"]
        assert tokenizer.tokenize("a<start_of_turn>") == ["a", "<start_of_turn>"]
        assert tokenizer("a").input_ids == [2, 7]

    @pytest.mark.parametrize(
        ("extra", "problem"),
        [
            (lambda w: w.add_rope_scaling_factor(8.0), "rope.scaling.factor"),
            (lambda w: w.add_final_logit_softcapping(30.0), "final_logit_softcapping"),
            (lambda w: w.add_add_eos_token(True), "add_eos_token"),
        ],
    )
    def test_what_would_change_the_model_is_refused(self, tmp_path, extra, problem):
        source = write_gemma(tmp_path / "tiny.gguf", gemma_weights(), extra)
        with pytest.raises(XTokenError, match=problem):
            convert_gguf(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"architecture": "gemma2"}, "'gemma2'"),
        ({"pre": "qwen2"}, "'qwen2'"),
        ({"rotated": HEAD_DIM // 2}, "rope.dimension_count"),
        ({"extra": lambda w: w.add_rope_scaling_factor(8.0)}, "rope.scaling.factor"),
        ({"extra": lambda w: w.add_tensor("rope_freqs.weight", np.ones(8, "f4"))}, "rope_freqs"),
        (
            {"extra": lambda w: w.add_tensor("blk.0.attn_q.bias", np.ones(HIDDEN, "f4"))},
            "attn_q.bias",
        ),
    ],
)
def test_what_would_change_the_model_is_refused(tmp_path, options, problem):
    source = write_gguf(tmp_path / "tiny.gguf", random_weights(tied=True), **options)
    with pytest.raises(XTokenError, match=problem):
        convert_gguf(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"not a GGUF file" * 10])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(XTokenError, match=r"x\.gguf"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "out")


def test_a_missing_field_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf.GGUFWriter, "add_feed_forward_length", lambda *_: None)
    source = write_gguf(tmp_path / "tiny.gguf", random_weights(tied=True))
    with pytest.raises(XTokenError, match=r"feed_forward_length.*missing"):
        convert_gguf(source, tmp_path / "out")


def test_real_model_answers(asset):
    """A wrong q/k order, scale or norm gives word salad here."""
    torch = pytest.importorskip("torch", reason="PyTorch is the reference here")
    from transformers import AutoModelForCausalLM

    directory = asset("smollm2-135m")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    messages = [{"role": "user", "content": "What is the capital of Japan?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    reply = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False
    )
    assert "The capital of Japan is Tokyo." in tokenizer.decode(reply[0, ids.shape[1] :])
