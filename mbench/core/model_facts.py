"""What is known of a model without its weights; needs no torch, so that planning stays quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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

    def computed_in(self, dtype: str) -> str:
        """The dtype of the forward passes where a suite asks for `dtype`; `auto`: as stored."""
        return self.dtype if dtype == "auto" else dtype

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelFacts:
        """What `to_json` gave."""
        return cls(**{**data, "layers": tuple(data["layers"])})
