r"""Low-rank adapters: a layer's matrix W stays as it is, and a product of two thin ones is trained.

.. math:: y = W x + \frac{\alpha}{r}\, B A x

Source: LoRA (arXiv 2106.09685). A starts as PEFT's does, uniform within one over the root of its
inputs, and B at zero, so that a model with fresh adapters is the model without.

Letters: R rank; the rest as in `decoder`. Adapters are stacked over the layers as W is.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array

from xtoken_jax.models.decoder import Decoder
from xtoken_jax.models.sharding import parameter_spec

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# The names that users know them by, and the decoder's, with the number of input letters.
_MATRICES = {
    "q_proj": ("query_DHE", 1),
    "k_proj": ("key_DGE", 1),
    "v_proj": ("value_DGE", 1),
    "o_proj": ("output_HED", 2),
    "gate_proj": ("gate_DF", 1),
    "up_proj": ("up_DF", 1),
    "down_proj": ("down_FD", 1),
}


@dataclasses.dataclass(frozen=True)
class Adapters:
    """Which matrices get adapters, of which size.

    Attributes:
        rank: Of the product.
        alpha: The product counts `alpha / rank` times.
        targets: Matrices of every layer.
    """

    rank: int
    alpha: float
    targets: Sequence[Target]


def add_adapters(
    model: Decoder, adapters: Adapters, *, seed: int = 0, mesh: Mesh | None = None
) -> None:
    """Give a model fresh adapters, float32, in the variables of type `nnx.LoRAParam`.

    Args:
        model: Changed in place; computes what it did before.
        adapters: Where, and of which size.
        seed: Of A.
        mesh: Adapters are born sharded over it: R is whole everywhere, the rest as in W.
    """
    layers = model.layers
    layers.adapter_scale = adapters.alpha / adapters.rank
    layers.adapters = nnx.Dict()
    for number, target in enumerate(adapters.targets):
        name, num_inputs = _MATRICES[target]
        letters = name.rpartition("_")[2]
        L, *sizes = getattr(layers, name).get_value().shape
        shapes = {
            f"down_{letters[:num_inputs]}R": (L, *sizes[:num_inputs], adapters.rank),
            f"up_R{letters[num_inputs:]}": (L, adapters.rank, *sizes[num_inputs:]),
        }
        down, up = shapes
        key = jax.random.fold_in(jax.random.key(seed), number)
        bound = 1 / math.sqrt(math.prod(sizes[:num_inputs]))
        values = {
            down: _born(partial(_uniform, key, shapes[down], bound), down, shapes[down], mesh),
            up: _born(partial(jnp.zeros, shapes[up]), up, shapes[up], mesh),
        }
        layers.adapters[name] = nnx.Dict({k: nnx.LoRAParam(v) for k, v in values.items()})


def merge_adapters(model: Decoder) -> None:
    """Add the adapters' products to the matrices, in place; the model has none afterwards.

    The sum is rounded to the matrix's dtype.
    """
    layers = model.layers
    for name, pair in (layers.adapters or {}).items():
        matrix = getattr(layers, name)
        down, up = (parameter.get_value() for parameter in pair.values())
        merge = jax.jit(partial(_merged, scale=layers.adapter_scale), donate_argnums=0)
        matrix.set_value(merge(matrix.get_value(), down, up))
    layers.adapters = None


def is_trained_with_adapters(embeddings: bool):
    """A filter for `nnx.split`: adapters, and embedding and unembedding where asked for."""
    vocabulary = ("embedding_VD", "lm_head_VD") if embeddings else ()

    def is_trained(path, variable) -> bool:
        return isinstance(variable, nnx.LoRAParam) or path[-1] in vocabulary

    return is_trained


def _uniform(key, shape, bound):
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _born(make, name: str, shape: tuple[int, ...], mesh: Mesh | None) -> Array:
    if mesh is None:
        return make()
    spec = parameter_spec(("layers", name), shape, mesh.shape)
    return jax.jit(make, out_shardings=NamedSharding(mesh, spec))()


def _merged(matrix, down, up, *, scale):
    rank = up.shape[1]
    thin = down.reshape(len(down), -1, rank), up.reshape(len(up), rank, -1)
    product = jnp.einsum("LIR,LRO->LIO", *thin, precision="highest").reshape(matrix.shape)
    return (matrix.astype(jnp.float32) + scale * product).astype(matrix.dtype)
