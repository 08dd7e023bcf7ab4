"""What a stored form of weights is: which tensors make up a weight, and which numbers they mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Part:
    """What a tensor of a checkpoint is part of."""

    weight: str
    """Name of the weight in an unquantised checkpoint of the family."""
    role: str
    """What it holds of it, e.g. `weight_scale_inv`; of a tensor that is no part, the last word of
    its name."""


class Form(ABC):
    """How a checkpoint stores some of its weights; others are plain tensors of floating numbers."""

    @property
    @abstractmethod
    def words(self) -> str:
        """For readers, after "weights as stored in": e.g. `FP8 128x128`."""

    @property
    @abstractmethod
    def activations(self) -> str:
        """In words, what the form asks of activations, which mbench never quantises; or nothing."""

    @abstractmethod
    def part(self, name: str) -> Part:
        """Tell what a stored tensor is part of, by its name alone."""

    @abstractmethod
    def decode(self, weight: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return a weight's numbers, float32 in the shape of the unquantised weight.

        `parts` are by role, on any one device; never a plain tensor alone. Raises
        `UnsupportedModel`, naming weight, form and shapes, where they contradict the form.
        """
