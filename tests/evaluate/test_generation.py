import numpy as np
import pytest

from tests.tiny import sentences, tiny_model
from xtoken_jax.errors import XTokenError
from xtoken_jax.evaluate import generate_texts
from xtoken_jax.evaluate.generation import generate_from
from xtoken_jax.evaluate.rows import started_rows
from xtoken_jax.models.generate import Sampling, generate
from xtoken_jax.models.weights import load_model
from xtoken_jax.text import ByteTokenizer

PROMPTS = [*sentences(4, seed=3), "", "7"]


@pytest.fixture(scope="module", params=[True, False], ids=["bos", "no_bos"])
def side(request, tmp_path_factory):
    directory = tiny_model(tmp_path_factory.mktemp("tiny") / "model", packs_digits=request.param)
    return load_model(directory), ByteTokenizer.load(directory)


def alone(model, tokenizer, prompt, *, max_new_tokens=12):
    """The bytes after one prompt, up to the tokenizer's eos."""
    start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    ids_BP = np.array([[start, *tokenizer.encode([prompt])[0]]], np.int32)
    made_BN = generate(
        model,
        ids_BP,
        np.array([ids_BP.shape[1]]),
        max_new_tokens=max_new_tokens,
        num_tokens=tokenizer.num_tokens,
        stop_ids=[tokenizer.eos_id],
    )
    ids = [id for id in np.asarray(made_BN)[0].tolist() if id not in (-1, tokenizer.eos_id)]
    return b"".join(tokenizer.token_bytes[id] for id in ids)


def test_each_prompt_gives_what_it_gives_alone(side):
    texts = generate_texts(*side, PROMPTS, max_new_tokens=12, batch_size=4)
    assert texts == [alone(*side, prompt).decode(errors="replace") for prompt in PROMPTS]
    assert len(set(texts)) > 3


def test_a_text_ends_before_the_stop(side):
    (whole,) = generate_texts(*side, PROMPTS[:1], max_new_tokens=12)
    stop = whole[4:6]
    (text,) = generate_texts(*side, PROMPTS[:1], max_new_tokens=12, stop=stop)
    assert text == whole[: whole.index(stop)]


def test_draws_depend_on_the_seed_and_not_on_the_batch(side):
    options = {"max_new_tokens": 6, "sampling": Sampling(temperature=3.0)}
    texts = generate_texts(*side, PROMPTS, **options, seed=1)
    assert generate_texts(*side, PROMPTS, **options, seed=1, batch_size=2) == texts
    assert generate_texts(*side, PROMPTS, **options, seed=2) != texts


def test_rows_of_tokens_are_taken_as_they_are(side):
    model, tokenizer = side
    rows = started_rows(tokenizer.encode(PROMPTS), model, tokenizer)
    options = {"max_new_tokens": 5}
    assert generate_from(*side, rows, **options) == generate_texts(*side, PROMPTS, **options)
    assert generate_from(*side, [row[1:] for row in rows[:1]], **options) != generate_texts(
        *side, PROMPTS[:1], **options
    )


def test_no_prompts_give_nothing(side):
    assert generate_texts(*side, []) == []


def test_a_model_with_too_few_rows_is_refused(side, tmp_path):
    model, _ = side
    tokenizer = ByteTokenizer.load("asset:smollm2-135m")
    with pytest.raises(XTokenError, match=r"model must have a row for each of the 49152 tokens"):
        generate_texts(model, tokenizer, ["a"])
