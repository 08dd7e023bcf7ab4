"""How long a plan takes on other machines, by their data sheets; nothing of it is measured."""

from __future__ import annotations

from dataclasses import dataclass

from mbench.core.model_facts import DTYPE_BYTES
from mbench.plan.models import PlannedModel

UTILISATION = 0.25
"""Share of a device's peaks, in operations and in bytes read, that forward passes through routed
experts are assumed to reach."""

ROWS = 128
"""Answers that are assumed to be generated side by side on an accelerator."""


@dataclass(frozen=True)
class DeviceClass:
    """A kind of accelerator, by its maker's data sheet."""

    name: str
    flops: float
    """Dense bfloat16 operations a second at the peak."""
    bandwidth: float
    """Bytes that its memory delivers a second, at the peak."""
    memory: float
    """Bytes."""


DEVICE_CLASSES = (
    DeviceClass("RTX 4090 24 GB", 165e12, 1.0e12, 24e9),
    DeviceClass("A100 80 GB", 312e12, 2.0e12, 80e9),
    DeviceClass("H100 80 GB", 989e12, 3.35e12, 80e9),
)


@dataclass(frozen=True)
class DeviceTime:
    """The estimated time of a plan on a kind of accelerator."""

    device: str
    hours: float
    fits: bool
    """Whether the weights leave room for anything else in its memory."""


def on_devices(model: PlannedModel, read: int, generated: int) -> tuple[DeviceTime, ...]:
    """Tokens that are read cost operations; those that are generated cost reading all weights, a
    token of every row at a time."""
    weights = model.facts.parameters * DTYPE_BYTES[model.computed_in]

    def hours(device: DeviceClass) -> float:
        reading = read * flops_per_token(model) / device.flops
        generating = generated / ROWS * weights / device.bandwidth
        return (reading + generating) / UTILISATION / 3600

    return tuple(
        DeviceTime(device.name, hours(device), fits=weights < 0.9 * device.memory)
        for device in DEVICE_CLASSES
    )


def flops_per_token(model: PlannedModel) -> float:
    """Operations per token: twice the parameters that a token uses."""
    facts = model.facts
    idle = len(facts.layers) * (facts.num_experts - facts.top_k) * facts.expert_parameters
    return 2.0 * (facts.parameters - idle)
