"""What is known of a model without its weights; needs no torch, so that planning stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from mbench.core.errors import UnsupportedModel
from mbench.core.stand_ins import Constants, StandIn

Gates = Literal["renormalised", "kept", "grown"]
"""What becomes of the gates of experts that are left once the router sees no others.

`renormalised`: those of a token's experts sum up to the same as before, however many are left.
`grown`: all experts share one softmax, so that each that is left gets more. `kept`: each expert is
scored by itself, and gets what it got in the full model.
"""

DTYPE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number, by the dtypes that models may be stored and computed in."""


@dataclass(frozen=True)
class ModelFacts:
    """Sizes and names from a model's configuration."""

    model_type: str
    architecture: str
    layers: tuple[str, ...]
    """Module paths of the MoE layers' experts, in model order."""
    num_experts: int
    top_k: int
    hidden_size: int
    parameters: int
    """Parameters of the whole model, tied ones counted once."""
    expert_parameters: int
    """Parameters of one routed expert in one layer."""
    dtype: str
    """The dtype the checkpoint is stored in, e.g. `bfloat16`."""
    groups: int = 1
    """Groups of consecutive experts, each of which must keep equally many."""
    fewest_experts: int = 1
    """The least K that the layers' routers can choose from."""
    positions: int | None = None
    """The most tokens it accepts; None: no limit."""
    vocabulary: int = 0
    """Rows of the embedding: token ids below it are valid."""
    attentions: tuple[str, ...] = ("sdpa", "eager")
    """Implementations of attention that its class has, the best first."""
    gates: Gates | None = None
    """What becomes of gates when the router is sliced; None: not known."""
    normalised: tuple[str, ...] = ()
    """What its configuration asks for and does not happen, in words."""

    stored_form: str = ""
    """In which form its weights are stored, in words, e.g. `FP8 128x128`; empty: as plain numbers.
    """
    may_stay_stored: bool = False
    """Whether its experts can lie in memory as they are stored."""

    def parameters_left(self, keep: np.ndarray, stand_in: StandIn | None = None) -> int:
        """Parameters of the model with the experts of a mask (bool [layers, N]) and constants.

        Routers count whole, so that methods with sliced and with whole ones compare as equals; in
        a checkpoint a sliced one has a row less for every dropped expert.
        """
        dropped = int(np.count_nonzero(~keep))
        constants = 0
        if isinstance(stand_in, Constants):
            constants = dropped * stand_in.outputs.shape[2]
        return self.parameters - dropped * self.expert_parameters + constants

    def attention(self, asked: str) -> str:
        """The implementation where a suite asks for one; `auto`: the best.

        Raises `UnsupportedModel` for one that its class does not have.
        """
        if asked == "auto":
            return self.attentions[0]
        if asked not in self.attentions:
            valid = ", ".join(("auto", *self.attentions))
            raise UnsupportedModel(
                f"{self.architecture} has no {asked!r} attention (valid: {valid})"
            )
        return asked

    def computed_in(self, dtype: str) -> str:
        """The dtype of the forward passes where a suite asks for `dtype`; `auto`: as stored."""
        return self.dtype if dtype == "auto" else dtype

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelFacts:
        """What `to_json` gave."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        return cls(**values)


@dataclass(frozen=True)
class StoredSize:
    """What a checkpoint's tensors take in its files."""

    bytes: int
    """All that the model's class uses: weights, scales and whatever else belongs to them."""
    expert_bytes: tuple[tuple[int, ...], ...]
    """Per MoE layer, what each expert takes, with its scales; one number where all take the same.
    """
    row_bytes: tuple[int, ...]
    """Likewise a row of the router, with its bias if there is one."""

    def bytes_left(self, keep: np.ndarray, *, whole_router: bool = False) -> int:
        """Of the checkpoint that is pruned to the experts of a mask (bool [layers, N])."""
        dropped = 0
        for row, each, of_router in zip(~keep, self.expert_bytes, self.row_bytes, strict=True):
            count = int(np.count_nonzero(row))
            same = len(each) == 1
            dropped += count * each[0] if same else sum(each[e] for e in np.flatnonzero(row))
            dropped += 0 if whole_router else count * of_router
        return self.bytes - dropped
