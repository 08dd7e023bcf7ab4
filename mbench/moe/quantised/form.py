"""What a stored form of weights is: which tensors make up a weight, and which numbers they mean."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mbench.core.errors import UnsupportedModel

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

    @property
    def beside(self) -> Collection[str]:
        """Roles that say nothing of a weight's numbers, e.g. scales of activations.

        Where there is nothing else of a weight, the checkpoint has no such weight.
        """
        return ()

    @abstractmethod
    def part(self, name: str) -> Part:
        """Tell what a stored tensor is part of, by its name alone."""

    @abstractmethod
    def decode(self, weight: str, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return a weight's numbers, float32 in the shape of the unquantised weight.

        `parts` are by role, on any one device; never a plain tensor alone. Raises
        `UnsupportedModel`, naming weight, form and shapes, where they contradict the form.
        """

    def pieces(
        self, weight: str, parts: Mapping[str, torch.Tensor]
    ) -> Sequence[Mapping[str, torch.Tensor]]:
        """Split the parts of a weight into those of equally long pieces of its dimension 0.

        Needed only where a weight's numbers in float32 should never exist at once.
        """
        return (parts,)

    def refusal(
        self, weight: str, parts: Mapping[str, torch.Tensor], reason: str
    ) -> UnsupportedModel:
        """What to raise for parts that contradict the form."""
        found = ", ".join(
            f"{role} {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            for role, tensor in sorted(parts.items())
        )
        return UnsupportedModel(f"{weight} in {self.words}: {reason} (found: {found})")


def refuse_unknown(
    method: str, settings: Mapping[str, Any], known: Mapping[str, Collection[Any] | None]
) -> None:
    """Raise `UnsupportedModel` for settings that a form's reader does not know.

    `known` holds the values that each may have; None: any, since it decides no number.
    """
    for name, value in settings.items():
        if name not in known:
            valid = ", ".join(sorted(known))
            raise UnsupportedModel(
                f"weights stored by {method!r}: its setting {name!r} is not known (known: {valid})"
            )
        values = known[name]
        if values is not None and value not in values:
            valid = ", ".join(str(each) for each in values)
            raise UnsupportedModel(
                f"weights stored by {method!r} with {name} {value!r} are not read (read: {valid})"
            )
