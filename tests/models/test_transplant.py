import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, pre_tokenizers

from xtoken_jax.errors import XTokenError
from xtoken_jax.models.transplant import mean_of_pieces, transplant
from xtoken_jax.models.weights import load_model, save_model

PIECES = {"<s>": [], "</s>": [], "a": [7], "b": [9], "ab": [7, 9], "aba": [7, 9, 7]}
PIECE_IDS = np.asarray([piece for pieces in PIECES.values() for piece in pieces])
PIECE_OFFSETS = np.cumsum([0, *map(len, PIECES.values())])


@pytest.fixture
def tokenizer_dir(tmp_path):
    directory = tmp_path / "tokenizer"
    directory.mkdir()
    vocabulary = {token: i for i, token in enumerate(PIECES)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"__type": "AddedToken", "content": "</s>"},
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture
def source_dir(tiny_decoder, tmp_path):
    def make(**changes):
        model = tiny_decoder(bos_token_id=60, eos_token_id=61, pad_token_id=62, **changes)
        save_model(model, tmp_path / "source")
        return tmp_path / "source"

    return make


def test_rows_are_means_of_pieces():
    source_UD = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    counts = np.random.default_rng(1).choice([0, 1, 1, 2, 3, 11], size=10_000)  # several blocks
    ids = np.random.default_rng(2).integers(0, 50, counts.sum())
    offsets = np.cumsum([0, *counts])
    new_VD = mean_of_pieces(source_UD, ids, offsets)
    for row, start, stop in zip(new_VD, offsets[:-1], offsets[1:], strict=True):
        pieces = source_UD[ids[start:stop]]
        if len(pieces) == 1:
            np.testing.assert_array_equal(row, pieces[0])
        else:
            mean = (pieces if len(pieces) else source_UD).mean(axis=0, dtype=np.float64)
            np.testing.assert_allclose(row, mean, atol=1e-6)


@pytest.mark.parametrize(
    ("ids", "offsets", "named"),
    [
        ([50], [0, 1], r"`piece_ids_N` must be within 0\.\.49, got 50\.\.50"),
        ([-1], [0, 1], "`piece_ids_N`"),
        ([1, 2], [0, 1], "`piece_offsets_V` must ascend to 2"),
        ([1, 2], [0, 3, 2], "`piece_offsets_V` must ascend to 2"),
        ([1, 2], [1, 2], "`piece_offsets_V` must start with 0"),
    ],
)
def test_pieces_that_do_not_fit(ids, offsets, named):
    with pytest.raises(ValueError, match=named):
        mean_of_pieces(np.zeros((50, 3), np.float32), np.asarray(ids), np.asarray(offsets))


@pytest.mark.parametrize("tied", [True, False])
def test_transplanted_directory(source_dir, tokenizer_dir, tmp_path, tied):
    source = source_dir(tie_word_embeddings=tied)
    transplant(
        source,
        tokenizer_dir,
        tmp_path / "out",
        piece_ids_N=PIECE_IDS,
        piece_offsets_V=PIECE_OFFSETS,
        layers=[2, 0],
    )
    old = load_file(source / "model.safetensors")
    new = load_file(tmp_path / "out" / "model.safetensors")
    for key in ("model.embed_tokens.weight", *(() if tied else ("lm_head.weight",))):
        np.testing.assert_array_equal(new[key][2], old[key][7])
        np.testing.assert_allclose(new[key][5], (2 * old[key][7] + old[key][9]) / 3, atol=1e-7)
        np.testing.assert_allclose(new[key][0], old[key].mean(axis=0), atol=1e-7)
    for new_layer, old_layer in enumerate([2, 0]):
        key = "model.layers.{}.mlp.up_proj.weight"
        np.testing.assert_array_equal(new[key.format(new_layer)], old[key.format(old_layer)])
    model = load_model(tmp_path / "out")  # complains of a tensor too many or too few
    assert model.architecture.num_layers == 2
    assert model.architecture.vocab_size == 6
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    ids = [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")]
    assert ids == [0, 1, None]


def test_transformers_loads_a_transplant(source_dir, tokenizer_dir, tmp_path, torch, logits_of):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    pieces = {"piece_ids_N": PIECE_IDS, "piece_offsets_V": PIECE_OFFSETS}
    transplant(source_dir(), tokenizer_dir, tmp_path / "out", **pieces)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    ids_BS = np.asarray([tokenizer.encode("ab a aba b")])
    assert ids_BS.tolist() == [[4, 2, 5, 3]]
    with torch.no_grad():
        reference = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
        expected_BSV = reference(torch.tensor(ids_BS)).logits.numpy()
    model = load_model(tmp_path / "out")
    logits_BSV = logits_of(model, ids_BS, np.arange(4)[None], np.ones_like(ids_BS))
    np.testing.assert_allclose(logits_BSV, expected_BSV, rtol=1e-4, atol=1e-4)


def test_pieces_for_another_tokenizer_leave_nothing_behind(source_dir, tokenizer_dir, tmp_path):
    pieces = {"piece_ids_N": PIECE_IDS[:1], "piece_offsets_V": np.asarray([0, 0, 0, 1])}
    with pytest.raises(ValueError, match="`piece_offsets_V` must have 7 numbers"):
        transplant(source_dir(), tokenizer_dir, tmp_path / "out", **pieces)
    (tokenizer_dir / "tokenizer.json").unlink()
    with pytest.raises(XTokenError, match=r"has no tokenizer\.json"):
        transplant(tmp_path / "source", tokenizer_dir, tmp_path / "out", **pieces)
    assert not (tmp_path / "out").exists()
