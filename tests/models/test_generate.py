import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from xtoken_jax.models.generate import NO_TOKEN, Sampling, generate, nucleus
from xtoken_jax.models.weights import load_model

NUM_TOKENS = 61  # the tiny models have 65 rows
NUM_NEW = 10
PROMPTS = [[5, 40, 3], [17, 2, 60, 33, 8, 1, 12, 54, 9], [7], [11, 30, 22, 4, 50, 6, 19]]
LENGTH = 9 + NUM_NEW

LOCAL, GLOBAL = "sliding_attention", "full_attention"
# One text begins past the short length, one grows past it, two stay below.
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [4.0, 9.0, 30.0],
    "partial_rotary_factor": 0.75,
}
CASES = {
    "llama": {"attention_bias": True, "mlp_bias": True},
    "mistral, window": {"model_type": "mistral", "sliding_window": 4},
    "qwen3": {"model_type": "qwen3", "head_dim": 12, "tie_word_embeddings": False},
    "phi3, longrope": {"model_type": "phi3", "pad_token_id": 0, "rope_parameters": LONGROPE}
    | {"original_max_position_embeddings": 8, "max_position_embeddings": 4096},
    "gemma3": {"model_type": "gemma3_text", "head_dim": 12, "query_pre_attn_scalar": 20}
    | {"sliding_window": 4, "layer_types": [LOCAL, GLOBAL, LOCAL]}
    | {"final_logit_softcapping": 5.0, "attn_logit_softcapping": 2.0},
    "smollm3": {"model_type": "smollm3", "no_rope_layers": [0, 1, 0], "pad_token_id": 0},
}


@nnx.jit
def logits_at(model, ids_BS, num_read):
    positions_BS = jnp.arange(ids_BS.shape[1])[None]
    segment_ids_BS = (positions_BS < num_read).astype(jnp.int32)
    return model.logits(model(ids_BS, positions_BS, segment_ids_BS))[0, num_read - 1]


def next_logits(model, ids):
    """Of the token after `ids`, by reading all of them again."""
    ids_BS = np.zeros((1, LENGTH), np.int32)
    ids_BS[0, : len(ids)] = ids
    return np.asarray(logits_at(model, ids_BS, len(ids)))[:NUM_TOKENS]


def greedy(model, prompt, *, num_new=NUM_NEW):
    ids = list(prompt)
    for _ in range(num_new):
        ids.append(int(next_logits(model, ids).argmax()))
    return ids[len(prompt) :]


def left_padded(prompts, *, width=None):
    lengths_B = np.array([len(prompt) for prompt in prompts])
    ids_BP = np.full((len(prompts), width or max(lengths_B)), 64)  # padding is no token
    for row, prompt in zip(ids_BP, prompts, strict=True):
        row[len(row) - len(prompt) :] = prompt
    return ids_BP, lengths_B


def run(model, prompts, *, width=None, num_new=NUM_NEW, **options):
    options = {"max_new_tokens": num_new, "num_tokens": NUM_TOKENS} | options
    return np.asarray(generate(model, *left_padded(prompts, width=width), **options)).tolist()


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_greedy_tokens_are_those_of_reading_all_again(tiny_decoder, changes):
    """Every row, beside longer and shorter ones; and so what it gives alone."""
    model = tiny_decoder(**changes)
    expected = [greedy(model, prompt) for prompt in PROMPTS]
    assert len(set(map(tuple, expected))) == len(PROMPTS)
    assert run(model, PROMPTS) == expected


def test_a_text_that_outgrows_the_short_length_is_read_again(tiny_decoder, monkeypatch):
    """Else the case of LongRope above would show nothing."""
    model = tiny_decoder(**CASES["phi3, longrope"])
    monkeypatch.setattr("xtoken_jax.models.generate._length_limits", lambda model: [])
    # Another width, for another program than the one above.
    assert run(model, PROMPTS[3:], width=8) != [greedy(model, PROMPTS[3])]


def test_more_padding_and_empty_rows_change_nothing(tiny_decoder):
    model = tiny_decoder()
    rows = run(model, [[], *PROMPTS[:2]], width=16)
    assert rows == [[NO_TOKEN] * NUM_NEW, *run(model, PROMPTS[:2])]


def test_rows_past_the_tokenizer_are_never_taken(tiny_decoder):
    model = tiny_decoder(options={"padded_vocab_size": 72})
    embedding_VD = model.embedding_VD[...]
    best = run(model, PROMPTS[:1], num_new=1)[0][0]
    twice_VD = embedding_VD.at[jnp.arange(NUM_TOKENS, 72)].set(2 * embedding_VD[best])
    model.embedding_VD.set_value(twice_VD)
    assert run(model, PROMPTS[:1], num_new=1, num_tokens=65)[0][0] >= NUM_TOKENS
    assert run(model, PROMPTS[:1], num_new=1)[0] == [best]


class TestStopping:
    def test_a_row_ends_with_its_stop_token(self, tiny_decoder):
        model = tiny_decoder()
        free = run(model, PROMPTS)
        stops = [free[0][2], free[1][5]]
        for row, whole in zip(run(model, PROMPTS, stop_ids=stops), free, strict=True):
            ends = [at for at, token in enumerate(whole) if token in stops]
            kept = whole[: ends[0] + 1] if ends else whole
            assert row == kept + [NO_TOKEN] * (NUM_NEW - len(kept))

    def test_the_program_ends_when_every_row_has(self, tiny_decoder):
        """Tokens in plenty, of which nobody waits for the last."""
        model = tiny_decoder()
        stops = [run(model, [prompt], num_new=1)[0][0] for prompt in PROMPTS]
        rows = run(model, PROMPTS, stop_ids=stops, num_new=20_000)
        assert [row[:2] for row in rows] == [[stop, NO_TOKEN] for stop in stops]


class TestDrawing:
    @pytest.fixture
    def seeds_B(self):
        return np.array([3, 1, 4, 5])

    def test_a_row_depends_on_its_own_key_alone(self, tiny_decoder, seeds_B):
        model = tiny_decoder()
        sampling = Sampling(temperature=2.0, top_p=0.9)
        rows = run(model, PROMPTS, sampling=sampling, seeds_B=seeds_B)
        assert run(model, PROMPTS[:1], sampling=sampling, seeds_B=seeds_B[:1]) == rows[:1]
        assert run(model, PROMPTS[:1], sampling=sampling, seeds_B=seeds_B[1:2]) != rows[:1]

    def test_frequencies_are_those_of_the_tempered_nucleus(self, tiny_decoder):
        model = tiny_decoder()
        scaled = next_logits(model, PROMPTS[0]).astype(np.float64) / 1.5
        probabilities = np.exp(scaled - scaled.max()) / np.exp(scaled - scaled.max()).sum()
        expected = np.where(in_nucleus(probabilities, 0.8), probabilities, 0)
        expected /= expected.sum()
        rows = run(
            model,
            PROMPTS[:1] * 4000,
            num_new=1,
            sampling=Sampling(temperature=1.5, top_p=0.8),
            seeds_B=np.arange(4000),
        )
        found = np.bincount(np.ravel(rows), minlength=NUM_TOKENS) / 4000
        assert not found[expected == 0].any()
        error = np.sqrt(expected * (1 - expected) / 4000)
        assert (np.abs(found - expected) <= 4.5 * error).all()

    @pytest.mark.parametrize("sampling", [Sampling(1e-30), Sampling(3.0, 1e-6)])
    def test_little_freedom_is_greedy(self, tiny_decoder, seeds_B, sampling):
        model = tiny_decoder()
        assert run(model, PROMPTS, sampling=sampling, seeds_B=seeds_B) == run(model, PROMPTS)


def in_nucleus(probabilities, top_p):
    """The smallest set, by trying sets of more and more of the likeliest tokens."""
    order = np.argsort(-probabilities, kind="stable")
    for count in range(1, len(order) + 1):
        if probabilities[order[:count]].sum() >= top_p:
            break
    return np.isin(np.arange(len(order)), order[:count])


@pytest.mark.parametrize("top_p", [1e-9, 0.1, 0.3, 0.5, 0.77, 0.9, 0.99, 1.0])
def test_nucleus_is_the_smallest_set_of_that_mass(top_p):
    logits_BV = 3 * np.random.default_rng(4).normal(size=(20, 37)).astype(np.float32)
    order_BV, kept_BV = nucleus(jnp.asarray(logits_BV), top_p)
    np.testing.assert_array_equal(np.sort(order_BV), np.arange(37)[None].repeat(20, 0))
    for logits_V, order_V, kept_V in zip(
        logits_BV, np.asarray(order_BV), np.asarray(kept_BV), strict=True
    ):
        probabilities = np.exp(logits_V.astype(np.float64))
        is_in_V = in_nucleus(probabilities / probabilities.sum(), top_p)
        np.testing.assert_array_equal(np.isin(np.arange(37), order_V[kept_V > -np.inf]), is_in_V)
        np.testing.assert_array_equal(kept_V[kept_V > -np.inf], -np.sort(-logits_V[is_in_V]))


def test_of_equal_tokens_no_more_are_kept_than_needed():
    _, kept_BV = nucleus(jnp.zeros((1, 8)), 0.5)
    assert np.isfinite(kept_BV).sum() == 4


def test_greedy_tokens_equal_transformers(saved_hf_model, torch, tiny_config):
    reference, directory = saved_hf_model(tiny_config(bos_token_id=None, eos_token_id=None))
    model = load_model(directory)
    for prompt in PROMPTS[:2]:
        ids = torch.tensor([prompt])
        expected = reference.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NUM_NEW, do_sample=False
        )
        (row,) = run(model, [prompt], num_tokens=65)
        assert row == expected[0, len(prompt) :].tolist()


def test_every_mesh_gives_the_same(tiny_decoder, mesh_222):
    from xtoken_jax.models.sharding import state_shardings

    model = tiny_decoder(options={"padded_vocab_size": 66})
    expected = run(model, PROMPTS)
    with jax.set_mesh(mesh_222):
        nnx.update(
            model, jax.device_put(nnx.state(model), state_shardings(nnx.state(model), mesh_222))
        )
        assert run(model, PROMPTS) == expected


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"num_new": 0}, "`max_new_tokens` must be at least 1, got 0"),
            ({"num_tokens": 66}, r"`num_tokens` must be within 1\.\.65, got 66"),
            ({"sampling": Sampling(0.5)}, "`seeds_B` must be given at temperature 0.5"),
        ],
    )
    def test_bad_options(self, tiny_decoder, options, told):
        with pytest.raises(ValueError, match=told):
            run(tiny_decoder(), PROMPTS[:1], **options)

    def test_bad_sampling(self):
        with pytest.raises(ValueError, match="`temperature` must be at least 0, got -1"):
            Sampling(temperature=-1.0)
        with pytest.raises(ValueError, match=r"`top_p` must be within \(0, 1\], got 0"):
            Sampling(top_p=0.0)
