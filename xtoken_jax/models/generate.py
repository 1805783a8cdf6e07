"""Text from a decoder, token by token, in one compiled program.

Prompts are padded on the left, so that all rows write the same column at each step. Padding is
segment 0, which no text sees, and positions count from each text's own start: what a row gives
does not depend on its neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from xtoken_jax.models.cache import Cache
from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.rope_config import LongRope
from xtoken_jax.models.rotary import layer_ropes

NO_TOKEN = -1  # in the place of tokens after the end of a text


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Attributes:
        temperature: Logits are divided by it; 0 takes the likeliest token.
        top_p: Only the likeliest tokens that together have this probability may be drawn.

    Raises:
        ValueError: a value is out of range.

    Source: nucleus sampling, arXiv 1904.09751.
    """

    temperature: float = 0.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise ValueError(f"`temperature` must be at least 0, got {self.temperature}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"`top_p` must be within (0, 1], got {self.top_p}")


GREEDY = Sampling()


def generate(
    model: Decoder,
    ids_BP: Int[np.ndarray, "B P"],
    lengths_B: Int[np.ndarray, " B"],
    *,
    max_new_tokens: int,
    num_tokens: int,
    stop_ids: Sequence[int] = (),
    sampling: Sampling = GREEDY,
    seeds_B: Int[np.ndarray, " B"] | None = None,
) -> Int[Array, "B N"]:
    """Tokens that go on from each prompt.

    A program is compiled for each shape of `ids_BP`, `max_new_tokens` and number of stop ids, and
    for greedy and drawn tokens apart.

    Args:
        model: Any.
        ids_BP: Each row ends with its prompt; what is before that is padding.
        lengths_B: Of the prompts; a row of length 0 gives nothing.
        max_new_tokens: N, for every row; the program ends early when every row has ended.
        num_tokens: Of the tokenizer; the model's rows past them are never drawn.
        stop_ids: Tokens that end a text; the one that does is in the result.
        sampling: How a token is drawn.
        seeds_B: One for each row, on which alone its draws depend; unused when greedy.

    Returns:
        int32; `NO_TOKEN` after the token that ended a row.

    Raises:
        ValueError: `max_new_tokens` or `num_tokens` is out of range, or `seeds_B` is missing.
    """
    if max_new_tokens < 1:
        raise ValueError(f"`max_new_tokens` must be at least 1, got {max_new_tokens}")
    if not 0 < num_tokens <= model.vocab_size:
        raise ValueError(f"`num_tokens` must be within 1..{model.vocab_size}, got {num_tokens}")
    is_greedy = sampling.temperature == 0
    if not is_greedy and seeds_B is None:
        raise ValueError(f"`seeds_B` must be given at temperature {sampling.temperature}, got None")
    graph, state = nnx.split(model)
    return _generate(
        graph,
        state,
        ids_BP.astype(np.int32),
        lengths_B.astype(np.int32),
        np.asarray(stop_ids, np.int32),
        None if is_greedy else (seeds_B, sampling.temperature, sampling.top_p),
        max_new_tokens=max_new_tokens,
        num_tokens=num_tokens,
    )


class _Texts(NamedTuple):
    """Rows in the making: T columns of prompts and new tokens, of which `column` are filled."""

    ids_BT: Int[Array, "B T"]
    is_done_B: Bool[Array, " B"]
    column: Int[Array, ""]
    cache: Cache


@partial(jax.jit, static_argnames=("graph", "max_new_tokens", "num_tokens"))
def _generate(graph, state, ids_BP, lengths_B, stop_ids, draw, *, max_new_tokens, num_tokens):
    model = nnx.merge(graph, state)
    num_prompt, num_columns = ids_BP.shape[1], ids_BP.shape[1] + max_new_tokens
    starts_B = num_prompt - lengths_B

    def add(texts: _Texts, hidden_B1D) -> _Texts:
        logits_BV = model.logits(hidden_B1D)[:, 0, :num_tokens]
        ids_B = _next_ids(logits_BV, draw, texts.column - num_prompt)
        ids_B = jnp.where(texts.is_done_B, NO_TOKEN, ids_B)
        is_done_B = texts.is_done_B | jnp.isin(ids_B, stop_ids)
        ids_BT = jax.lax.dynamic_update_slice_in_dim(
            texts.ids_BT, ids_B[:, None], texts.column, axis=1
        )
        return _Texts(ids_BT, is_done_B, texts.column + 1, texts.cache)

    def step(texts: _Texts) -> _Texts:
        hidden_B1D, cache = _read_last(model, texts, starts_B)
        return add(texts._replace(cache=cache), hidden_B1D)

    def goes_on(texts: _Texts):
        return (texts.column < num_columns) & ~texts.is_done_B.all()

    columns = _columns(starts_B, jnp.arange(num_prompt))
    hidden_BPD, cache = model.remember(ids_BP, *columns, num_columns=num_columns)
    room = ((0, 0), (0, max_new_tokens))
    ids_BT = jnp.pad(ids_BP, room, constant_values=NO_TOKEN)
    texts = _Texts(ids_BT, lengths_B == 0, jnp.asarray(num_prompt), cache)
    texts = jax.lax.while_loop(goes_on, step, add(texts, hidden_BPD[:, -1:]))
    return texts.ids_BT[:, num_prompt:]


def _columns(starts_B, columns_S):
    """Positions and segment ids of some columns; padding is segment 0."""
    positions_BS = columns_S[None] - starts_B[:, None]
    return jnp.maximum(positions_BS, 0), (positions_BS >= 0).astype(jnp.int32)


def _read_last(model: Decoder, texts: _Texts, starts_B):
    """The last token's hidden state, and the cache with it."""
    last = texts.column - 1
    ids_B1 = jax.lax.dynamic_slice_in_dim(texts.ids_BT, last, 1, axis=1)
    positions_B1, segment_ids_B1 = _columns(starts_B, last[None])

    def read(cache: Cache):
        ids_known_B1 = jnp.maximum(ids_B1, 0)
        return model.extend(ids_known_B1, positions_B1, segment_ids_B1, cache, last)

    def read_again(_: Cache):
        columns_T = jnp.arange(texts.ids_BT.shape[1])
        positions_BT, segment_ids_BT = _columns(starts_B, columns_T)
        segment_ids_BT = jnp.where(columns_T[None] <= last, segment_ids_BT, 0)
        hidden_BTD, cache = model.remember(
            jnp.maximum(texts.ids_BT, 0), positions_BT, segment_ids_BT, num_columns=len(columns_T)
        )
        return jax.lax.dynamic_slice_in_dim(hidden_BTD, last, 1, axis=1), cache

    limits = _length_limits(model)
    if not limits:
        return read(texts.cache)
    # A text that grows past LongRope's short length turns its earlier positions by other angles,
    # in every layer, so nothing in the cache holds any more.
    has_outgrown_B = jnp.isin(positions_B1[:, 0], jnp.asarray(limits)) & ~texts.is_done_B
    return jax.lax.cond(has_outgrown_B.any(), read_again, read, texts.cache)


def _length_limits(model: Decoder) -> list[int]:
    """Lengths up to which a text's angles are others than past them."""
    ropes, _ = layer_ropes(model.architecture)
    scalings = [rope.scaling for rope in ropes if rope is not None]
    return [s.original_max_position_embeddings for s in scalings if isinstance(s, LongRope)]


def _next_ids(logits_BV, draw: Any, num_drawn) -> Int[Array, " B"]:
    if draw is None:
        return jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    seeds_B, temperature, top_p = draw
    below_best_BV = logits_BV - logits_BV.max(axis=-1, keepdims=True)
    order_BV, kept_BV = nucleus(below_best_BV / temperature, top_p)
    keys_B = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), num_drawn))(seeds_B)
    places_B = jax.vmap(jax.random.categorical)(keys_B, kept_BV)
    return jnp.take_along_axis(order_BV, places_B[:, None], axis=-1)[:, 0].astype(jnp.int32)


def nucleus(
    logits_BV: Float[Array, "B V"], top_p: Float[Array, ""] | float
) -> tuple[Int[Array, "B V"], Float[Array, "B V"]]:
    """The smallest set of likeliest tokens whose probabilities sum to at least `top_p`.

    Returns:
        Token ids from the likeliest on, and their logits, -inf outside the set.

    Source: arXiv 1904.09751.
    """
    order_BV = jnp.argsort(-logits_BV, axis=-1)
    sorted_BV = jnp.take_along_axis(logits_BV, order_BV, axis=-1)
    probabilities_BV = jax.nn.softmax(sorted_BV, axis=-1)
    before_BV = jnp.cumsum(probabilities_BV, axis=-1) - probabilities_BV
    # Rounding may bring the sum to 1 before the last token, and the first is always in the set.
    is_in_BV = (before_BV < top_p) | (jnp.asarray(top_p) >= 1.0)
    return order_BV, jnp.where(is_in_BV, sorted_BV, -jnp.inf)
