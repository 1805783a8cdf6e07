"""What a loss reads of a model."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from xtoken_jax.ops import unembed


class ModelOutput(NamedTuple):
    """A model's final hidden states, the rows that turn them into logits, and what was read.

    Attributes:
        hidden_BSD: After the final norm; or the logits themselves.
        unembedding_VD: May have more rows than the tokenizer has tokens; None where `hidden_BSD` is
            logits already.
        ids_BS: The tokens at the positions of `hidden_BSD`.
    """

    hidden_BSD: Float[Array, "B S D"]
    unembedding_VD: Float[Array, "V D"] | None
    ids_BS: Int[Array, "B S"]

    @property
    def vocab_size(self) -> int:
        """Columns of the logits."""
        weights = self.hidden_BSD if self.unembedding_VD is None else self.unembedding_VD
        return weights.shape[-1 if self.unembedding_VD is None else 0]

    def logits(self, hidden_ND: Float[Array, "N D"]) -> Float[Array, "V N"]:
        """Logits of some of the positions, float32."""
        if self.unembedding_VD is None:
            return hidden_ND.T.astype(jnp.float32)
        return unembed(hidden_ND, self.unembedding_VD)
