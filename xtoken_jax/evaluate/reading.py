"""What a model makes of texts that it reads: the probability of each token, and its own guess."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from xtoken_jax.data import padded_rows
from xtoken_jax.evaluate.rows import started_rows
from xtoken_jax.losses import ModelOutput, next_token_log_probs
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.processes import gathered
from xtoken_jax.text import ByteTokenizer, Encoded


@dataclass(frozen=True)
class Reading:
    """Texts as one model reads them.

    Attributes:
        tokenizer: The model's.
        content: All texts, end to end, UTF-8.
        encoded: The texts; N tokens in all.
        log_probs_N: Natural logarithm of the probability of each token, float32.
        guesses_N: The likeliest token in the place of each.
    """

    tokenizer: ByteTokenizer
    content: bytes
    encoded: Encoded
    log_probs_N: np.ndarray
    guesses_N: np.ndarray


def read_texts(
    model: Decoder,
    tokenizer: ByteTokenizer,
    texts: Sequence[str],
    *,
    batch_size: int,
    length: int,
    block_tokens: int,
) -> Reading:
    """Read texts with a model's own tokenizer.

    Each text follows the tokenizer's bos, or its eos where it has no bos, so that the first
    token is predicted too and models with and without a bos are compared on the same bytes.

    Args:
        model: Has at least as many rows as the tokenizer has tokens.
        tokenizer: The model's.
        texts: Each must fit in `length` tokens: see `fitting_texts`.
        batch_size: Texts at a time.
        length: Tokens a text is padded to.
        block_tokens: See `losses.next_token_log_probs`.

    Raises:
        XTokenError: the tokenizer has neither bos nor eos, or more tokens than the model has rows.
        ValueError: a text does not fit.
    """
    encoded = tokenizer.encode(texts)
    rows = started_rows(encoded, model, tokenizer, length=length)
    graph, state = nnx.split(model)
    log_probs, guesses = [np.zeros(0, np.float32)], [np.zeros(0, np.int32)]
    for batch in padded_rows(rows, batch_size=batch_size, length=length):
        log_probs_BS, guesses_BS = _read(
            graph, state, batch, num_tokens=tokenizer.num_tokens, block_tokens=block_tokens
        )
        is_target_BS = batch["segment_ids_BS"][:, 1:] > 0
        log_probs.append(gathered(log_probs_BS)[:, :-1][is_target_BS])
        guesses.append(gathered(guesses_BS)[:, :-1][is_target_BS])
    content = "".join(texts).encode()
    return Reading(tokenizer, content, encoded, np.concatenate(log_probs), np.concatenate(guesses))


@partial(jax.jit, static_argnames=("graph", "num_tokens", "block_tokens"))
def _read(graph, state, batch, *, num_tokens: int, block_tokens: int):
    model = nnx.merge(graph, state)
    hidden_BSD = model(**batch)
    output = ModelOutput(hidden_BSD, model.unembedding_VD, batch["ids_BS"])
    log_probs_BS = next_token_log_probs(output, num_tokens=num_tokens, block_tokens=block_tokens)
    return log_probs_BS, _likeliest(model, hidden_BSD, num_tokens, block_tokens)


def _likeliest(model: Decoder, hidden_BSD, num_tokens: int, block_tokens: int):
    """Ids [B, S], from the logits of so many columns at a time."""
    num_rows, length, _ = hidden_BSD.shape
    width = min(-(-block_tokens // num_rows), length)
    # The last block reaches back over the one before it, so that all are equally wide.
    starts_N = jnp.minimum(jnp.arange(-(-length // width)) * width, length - width)

    def fill(ids_BS, start):
        block_BWD = jax.lax.dynamic_slice_in_dim(hidden_BSD, start, width, axis=1)
        ids_BW = jnp.argmax(model.logits(block_BWD)[..., :num_tokens], axis=-1).astype(jnp.int32)
        return jax.lax.dynamic_update_slice_in_dim(ids_BS, ids_BW, start, axis=1), None

    return jax.lax.scan(fill, jnp.zeros((num_rows, length), jnp.int32), starts_N)[0]
