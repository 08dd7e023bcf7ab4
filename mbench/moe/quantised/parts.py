"""The stored parts of a weight, checked against what its form says of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from mbench.moe.quantised.form import Form, Part

if TYPE_CHECKING:
    import torch

PLAIN = ("float32", "float16", "bfloat16")
"""Types of plain numbers, and of most scales."""


@dataclass(frozen=True)
class Parts:
    """What `Form.decode` is given."""

    form: Form
    weight: str
    tensors: Mapping[str, torch.Tensor]
    """By role."""

    def __contains__(self, role: str) -> bool:
        return role in self.tensors

    def tensor(self, role: str, dtypes: Collection[str], *shapes: tuple[int, ...]) -> torch.Tensor:
        """Return the part of a role; it must be of one of the types, and of the shapes if given."""
        if role not in self.tensors:
            self.refuse(f"{role} is missing")
        found = self.tensors[role]
        if _dtype(found) not in dtypes:
            self.refuse(f"{role} must be {' or '.join(dtypes)}")
        if shapes and tuple(found.shape) not in shapes:
            self.refuse(f"{role} must be {' or '.join(str(list(shape)) for shape in shapes)}")
        return found

    def matrix(self, role: str, dtype: str) -> torch.Tensor:
        """Return the part of a role, which must have two dimensions."""
        found = self.tensor(role, (dtype,))
        if found.dim() != 2:
            self.refuse(f"{role} must be a matrix; experts in one tensor are not read in this form")
        return found

    def powers(self, role: str, shape: tuple[int, int]) -> torch.Tensor:
        """Return powers of two, float32, of which the part of a role has the exponents (E8M0).

        Bytes are exponents with 127 added; 255 is no number (OCP Microscaling Formats 1.0, 5.4.1).
        """
        import torch

        exponents = self.tensor(role, ("uint8",), shape)
        if bool((exponents == 255).any()):
            self.refuse(f"{role} has 255, which is no number")
        return torch.ldexp(
            torch.ones_like(exponents, dtype=torch.float64), exponents.int() - 127
        ).float()

    def plain(self, beside: Collection[str]) -> torch.Tensor | None:
        """Return the weight in float32 if it is plain: only roles that do not concern it beside."""
        own = self.tensors.keys() - set(beside)
        if not own:
            self.refuse("the weight itself is missing")
        if own == {"weight"} and _dtype(self.tensors["weight"]) in PLAIN:
            return self.tensors["weight"].float()
        return None

    def only(self, *known: Collection[str]) -> None:
        """Refuse roles other than these."""
        if other := sorted(self.tensors.keys() - set().union(*known)):
            self.refuse(f"{other[0]} has no meaning")

    def refuse(self, why: str) -> NoReturn:
        """Raise `UnsupportedModel` that names form, weight, reason, and all types and shapes."""
        raise self.form.refusal(self.weight, self.tensors, why)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def by_last_word(name: str, roles: Collection[str]) -> Part:
    """The part that a name like `layer.scales` is of `layer.weight`, if its last word is a role."""
    owner, _, last = name.rpartition(".")
    return Part(f"{owner}.weight", last) if owner and last in roles else Part(name, last)
