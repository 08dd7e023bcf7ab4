"""What pruning saves: size, memory and speed of a pruned model beside the unpruned one."""

from __future__ import annotations

from dataclasses import dataclass

from mbench.core.cell_results import Status


@dataclass(frozen=True)
class Spread:
    """Tokens per second over the repetitions."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True)
class Footprint:
    """One model, full or pruned."""

    parameters: int
    """Tied ones counted once; only those that a checkpoint of the family has, as plain numbers."""
    checkpoint_bytes: int
    """Of its tensors as they are stored; of pickled ones as many as plain tensors take."""
    weight_bytes: int
    """Parameters and buffers in memory, in the dtype the suite asks for."""
    peak_bytes: int
    """Weights plus the most that was allocated while one batch was generated."""
    prefill: Spread
    """Tokens of the prompts read per second."""
    decode: Spread
    """Tokens generated per second, after the first one of each sequence."""


@dataclass(frozen=True)
class Saving:
    """A pruned model and the unpruned one, measured alternately in one process."""

    model: str
    retain: float
    kept: int
    """Experts kept per layer."""
    device: str
    status: Status
    reason: str
    allocations: str = ""
    """How the allocated bytes were counted."""
    unpruned: Footprint | None = None
    pruned: Footprint | None = None
