import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xtoken_jax.models.attention import attention, attention_mask, choose_implementation

FITS = {"head_dim": 64, "lengths": (128, 128)}


def test_mask():
    mask_ST = np.asarray(attention_mask(jnp.asarray([[1, 1, 1, 1, 2, 0]]), window=2))[0]
    expected = ["1.....", "11....", ".11...", "..11..", "....1.", ".....1"]
    assert ["".join(".1"[int(x)] for x in row) for row in mask_ST] == expected
    whole_ST = np.asarray(attention_mask(jnp.asarray([[1, 1, 1, 1, 2, 0]])))[0]
    assert ["".join(".1"[int(x)] for x in row) for row in whole_ST][3] == "1111.."


@pytest.mark.parametrize("window", [None, 3])
def test_ours_equals_jax(window):
    """Value and gradient, with grouped heads, several texts and a scale of its own."""
    draw = np.random.default_rng(0)
    query_BSHE, key_BTGE, value_BTGE, upstream_BSHE = (
        jnp.asarray(draw.normal(size=(2, 13, heads, 8)), jnp.float32) for heads in (6, 2, 2, 6)
    )
    segment_ids_BS = jnp.asarray([[1] * 5 + [2] * 6 + [0] * 2, [1] * 13])
    mask_BST = attention_mask(segment_ids_BS, window=window)

    def run(implementation):
        def mixed(query_BSHE, key_BTGE, value_BTGE):
            return attention(
                query_BSHE,
                key_BTGE,
                value_BTGE,
                mask_BST,
                scale=0.7,
                causal=True,
                implementation=implementation,
            )

        value, pullback = jax.vjp(mixed, query_BSHE, key_BTGE, value_BTGE)
        return value, pullback(upstream_BSHE)

    ours, theirs = (jax.jit(run, static_argnums=0)(name) for name in ("grouped", "xla"))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), ours, theirs)


@pytest.mark.parametrize(
    ("platform", "dtype", "changes", "expected"),
    [
        ("cpu", jnp.bfloat16, {}, "grouped"),
        ("gpu", jnp.bfloat16, {}, "cudnn"),
        ("gpu", jnp.float16, {}, "cudnn"),
        ("gpu", jnp.float32, {}, "xla"),
        ("gpu", jnp.bfloat16, {"head_dim": 256}, "xla"),
        ("gpu", jnp.bfloat16, {"head_dim": 12}, "xla"),
        ("gpu", jnp.bfloat16, {"lengths": (128, 127)}, "xla"),
        ("gpu", jnp.bfloat16, {"softcap": 5.0}, "grouped"),
        ("tpu", jnp.bfloat16, {}, "xla"),
    ],
)
def test_the_choice(platform, dtype, changes, expected):
    assert choose_implementation(platform, dtype, **FITS | changes) == expected


def test_the_decoder_asks_cudnn_on_gpu(monkeypatch, tiny_decoder, batch):
    """No GPU is needed to see that it is asked, and for what."""
    real, asked = jax.nn.dot_product_attention, []

    def spy(query, key, value, *, implementation, is_causal, **options):
        asked.append((implementation, is_causal, query.dtype, key.shape))
        return real(query, key, value, **options)

    model = tiny_decoder(options={"dtype": jnp.bfloat16})
    expected_BSD = model(*batch)
    monkeypatch.setattr("xtoken_jax.models.attention.current_platform", lambda: "gpu")
    monkeypatch.setattr("jax.nn.dot_product_attention", spy)
    hidden_BSD = model(*batch)
    assert asked == [("cudnn", True, jnp.bfloat16, (4, 24, 2, 8))]
    np.testing.assert_allclose(
        hidden_BSD.astype(jnp.float32), expected_BSD.astype(jnp.float32), atol=0.1
    )
