"""The methods that are compared, each as what it changes in an experiment's config."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xtoken_jax.config import merged


@dataclass(frozen=True)
class Method:
    """A row of the tables.

    Attributes:
        title: What the table calls it.
        loss: Fields of `teachers.NAME.loss`.
        projection: Fields of `teachers.NAME.projection`.
        scaling: Fields of `loss`.
    """

    title: str
    loss: Mapping[str, Any]
    projection: Mapping[str, Any] = field(default_factory=dict)
    scaling: Mapping[str, Any] = field(default_factory=lambda: {"scaling": "dynamic"})

    def applied_to(self, config: Mapping[str, Any], teacher: str) -> dict[str, Any]:
        """The config with this method between its student and the teacher of that name."""
        changes = {"loss": dict(self.loss), "projection": dict(self.projection)}
        return merged(config, {"teachers": {teacher: changes}, "loss": self.scaling})


def _fixed(weight: float) -> dict[str, Any]:
    return {"scaling": "fixed", "distillation_weight": weight, "cross_entropy_weight": 1.0}


BASELINE = "ce"
METHODS: dict[str, Method] = {
    # Weight 0 and not no teacher: the batches and the measures are the same then.
    BASELINE: Method("cross-entropy alone", {"kind": "p_kl"}, scaling=_fixed(0.0)),
    "uld": Method("ULD", {"kind": "uld"}),
    "gold": Method("GOLD", {"kind": "gold"}),
    "h_kl": Method("H-KL", {"kind": "h_kl"}),
    "p_kl": Method("P-KL (chain rule, mask)", {"kind": "p_kl"}),
    "p_kl-first": Method("P-KL, merge `first`", {"kind": "p_kl", "chunk_merge": "first"}),
    "p_kl-mean": Method("P-KL, merge `mean`", {"kind": "p_kl", "chunk_merge": "mean"}),
    "p_kl-keep": Method("P-KL, unreachable kept", {"kind": "p_kl", "unreachable": "keep"}),
    "p_kl-fold": Method("P-KL, unreachable folded", {"kind": "p_kl", "unreachable": "fold"}),
    "p_kl-learned": Method("P-KL, learned W", {"kind": "p_kl"}, projection={"learned": True}),
    "p_kl-reference": Method(
        "P-KL as in NeMo-RL (`mean`, kept)",
        {"kind": "p_kl", "chunk_merge": "mean", "unreachable": "keep"},
    ),
    # Where the first token of a chunk alone is compared, later pieces have no place in W's rows.
    "p_kl-pieces": Method("P-KL, W of first pieces", {"kind": "p_kl"}, projection={"gamma": 0.0}),
    "c_kl": Method("C-KL", {"kind": "c_kl"}),
    "gold-fixed": Method("GOLD, fixed weights", {"kind": "gold"}, scaling=_fixed(1.0)),
    "p_kl-fixed": Method("P-KL, fixed weights", {"kind": "p_kl"}, scaling=_fixed(1.0)),
    "c_kl-fixed": Method("C-KL, fixed weights", {"kind": "c_kl"}, scaling=_fixed(1.0)),
}
KINDS = (BASELINE, "uld", "gold", "h_kl", "p_kl", "c_kl")
