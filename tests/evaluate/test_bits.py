import math
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny import sentences, tiny_model
from xtoken_jax.errors import XTokenError
from xtoken_jax.evaluate import BitsPerByte, bits_per_byte, fitting_texts
from xtoken_jax.evaluate.bits import _digit_share
from xtoken_jax.models.weights import load_model
from xtoken_jax.text import ByteTokenizer

TEXTS = [*sentences(5, seed=3), "no number here", "7"]


@pytest.fixture(scope="module", params=[True, False], ids=["bos", "no_bos"])
def model_and_tokenizer(request, tmp_path_factory):
    directory = tiny_model(tmp_path_factory.mktemp("tiny") / "model", packs_digits=request.param)
    return load_model(directory), ByteTokenizer.load(directory)


def evaluate(model_and_tokenizer, texts, *, batch_size=4, length=80, block_tokens=64):
    return bits_per_byte(
        *model_and_tokenizer,
        texts,
        batch_size=batch_size,
        length=length,
        block_tokens=block_tokens,
    )


@nnx.jit
def run(model, *arrays):
    return model(*arrays)


def plain_logits(model, tokenizer, text):
    """Logits of one text, float64, and its ids behind the start token."""
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    ids = [start, *tokenizer.encode([text])[0]]
    padding = [0] * (80 - len(ids))  # one shape, so that JAX compiles once
    arrays = ([*ids, *padding], range(80), [1] * len(ids) + padding)
    hidden_BSD = run(model, *(jnp.asarray(array, jnp.int32)[None] for array in arrays))
    hidden_SD = np.asarray(hidden_BSD[0], np.float64)
    logits_SV = hidden_SD @ np.asarray(model.unembedding_VD, np.float64).T
    return logits_SV[:, : tokenizer.num_tokens], ids


def plain_bits(model, tokenizer, text):
    """Bits of each token of a text, one text at a time, softmax in float64."""
    logits_SV, ids = plain_logits(model, tokenizer, text)
    log_totals_S = np.log(np.exp(logits_SV).sum(axis=1))
    bits = [(log_totals_S[i] - logits_SV[i, ids[i + 1]]) / math.log(2) for i in range(len(ids) - 1)]
    return bits, [tokenizer.token_bytes[id] for id in ids[1:]]


def plain(model, tokenizer, texts):
    total = digit_total = 0.0
    num_bytes = num_digits = 0
    for text in texts:
        bits, contents = plain_bits(model, tokenizer, text)
        for token_bits, content in zip(bits, contents, strict=True):
            for byte in content:
                total += token_bits / len(content)
                num_bytes += 1
                if chr(byte) in "0123456789":
                    digit_total += token_bits / len(content)
                    num_digits += 1
    return total / num_bytes, digit_total / num_digits, num_bytes, num_digits


class TestBitsPerByte:
    def test_equals_a_plain_float64_computation(self, model_and_tokenizer):
        result = evaluate(model_and_tokenizer, TEXTS)
        bits, digit_bits, num_bytes, num_digits = plain(*model_and_tokenizer, TEXTS)
        assert result.all == pytest.approx(bits, rel=1e-5)
        assert result.digits == pytest.approx(digit_bits, rel=1e-5)
        assert (result.num_bytes, result.num_digit_bytes) == (num_bytes, num_digits)

    def test_counts_are_of_the_texts_whatever_the_tokenizer(self, model_and_tokenizer):
        result = evaluate(model_and_tokenizer, ["Zoë 201", "7"])
        assert (result.num_bytes, result.num_digit_bytes) == (9, 4)

    def test_digits_are_apart(self, model_and_tokenizer):
        model, tokenizer = model_and_tokenizer
        result = evaluate(model_and_tokenizer, ["201"])
        assert result.digits == pytest.approx(result.all, rel=1e-6)
        (first, *rest), _ = plain_bits(model, tokenizer, "a1")
        result = evaluate(model_and_tokenizer, ["a1"])
        assert result.digits == pytest.approx(sum(rest), rel=1e-5)
        assert result.all == pytest.approx((first + sum(rest)) / 2, rel=1e-5)

    def test_without_digits_there_is_no_number(self, model_and_tokenizer):
        result = evaluate(model_and_tokenizer, ["none"])
        assert math.isnan(result.digits)
        assert result.num_digit_bytes == 0
        assert result.to_dict()["digits"] is None

    @pytest.mark.parametrize(
        "options", [{"batch_size": 1}, {"batch_size": 7}, {"length": 200}, {"block_tokens": 13}]
    )
    def test_how_texts_are_batched_does_not_matter(self, model_and_tokenizer, options):
        one, other = (
            evaluate(model_and_tokenizer, TEXTS),
            evaluate(model_and_tokenizer, TEXTS, **options),
        )
        assert one.all == pytest.approx(other.all, rel=1e-6)
        assert one.digits == pytest.approx(other.digits, rel=1e-6)
        assert one.num_bytes == other.num_bytes

    def test_texts_do_not_see_each_other(self, model_and_tokenizer):
        results = [evaluate(model_and_tokenizer, [text]) for text in TEXTS]
        bits = sum(result.all * result.num_bytes for result in results)
        whole = evaluate(model_and_tokenizer, TEXTS)
        assert bits / whole.num_bytes == pytest.approx(whole.all, rel=1e-6)


def test_a_tokens_digit_share_is_of_its_bytes():
    tokenizer = SimpleNamespace(contents=lambda encoded: [b"2", b"a2", b" 2", b"<", b""])
    assert _digit_share(None, tokenizer).tolist() == [1.0, 0.5, 0.5, 0.0, 0.0]


class TestErrors:
    def test_a_text_that_does_not_fit(self, model_and_tokenizer):
        longest = 1 + len(model_and_tokenizer[1].encode(["seven 7 times"]).ids_N)
        evaluate(model_and_tokenizer, ["seven 7 times"], length=longest)
        with pytest.raises(
            ValueError, match=rf"at least {longest} for these texts, got {longest - 1}"
        ):
            evaluate(model_and_tokenizer, ["seven 7 times"], length=longest - 1)

    @pytest.mark.parametrize("texts", [[], ["", ""]])
    def test_no_byte(self, model_and_tokenizer, texts):
        with pytest.raises(ValueError, match=f"got {len(texts)} empty ones"):
            evaluate(model_and_tokenizer, texts)

    def test_a_vocabulary_larger_than_the_model(self, model_and_tokenizer, monkeypatch):
        model, tokenizer = model_and_tokenizer
        monkeypatch.setattr(tokenizer, "num_tokens", model.vocab_size + 1)
        with pytest.raises(XTokenError, match="a row for each of the"):
            evaluate(model_and_tokenizer, ["a"])

    def test_neither_bos_nor_eos(self, model_and_tokenizer, monkeypatch):
        monkeypatch.setattr(model_and_tokenizer[1], "bos_id", None)
        monkeypatch.setattr(model_and_tokenizer[1], "eos_id", None)
        with pytest.raises(XTokenError, match="must have a bos or an eos"):
            evaluate(model_and_tokenizer, ["a"])


class TestFittingTexts:
    def test_all_tokenizers_and_the_start_token_count(self, tmp_path):
        tokenizers = [
            ByteTokenizer.load(tiny_model(tmp_path / str(packs), packs_digits=packs))
            for packs in (True, False)
        ]
        texts = ["201", " apples", "201 apples"]  # 1, 1, 2 tokens on one side; 3, 1, 4 on the other
        assert fitting_texts(texts, tokenizers[:1], length=2) == ["201", " apples"]
        assert fitting_texts(texts, tokenizers, length=2) == [" apples"]
        assert fitting_texts(texts, tokenizers, length=4) == ["201", " apples"]
        assert fitting_texts(texts, tokenizers, length=5) == texts
        assert fitting_texts([], tokenizers, length=5) == []


def test_plain_values():
    assert BitsPerByte(1.5, 2.5, 10, 4).to_dict() == {
        "all": 1.5,
        "digits": 2.5,
        "num_bytes": 10,
        "num_digit_bytes": 4,
    }
