"""Settings and random states of the whole process, which a plugin must not change for others."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

DRAWS = "draws from {}, which all methods share: draw from the generator that it is given"
SETS = "changed {}, which all methods share"


@dataclass(frozen=True)
class State:
    """One state: how it is read and put back, and what the error says of a change."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    complaint: str
    initial: Any = None
    """Its value in a fresh process, where it has one: for libraries that a plugin loads first."""


def snapshot() -> dict[str, Any]:
    """The values of all states by name."""
    return {name: state.read() for name, state in _states().items()}


def put_back(before: Mapping[str, Any]) -> str:
    """Put every changed state back; returns what the error says of the first, or an empty text."""
    complaint = ""
    for name, state in _states().items():
        wanted = before.get(name, state.initial)
        if wanted is not None and state.read() != wanted:
            state.write(wanted)
            complaint = complaint or state.complaint
    return complaint


def _states() -> dict[str, State]:
    """What a plugin could change for everybody; torch's states only where it is loaded."""
    states = {
        "random": State(
            random.getstate, random.setstate, DRAWS.format("the global state of `random`")
        ),
        "numpy": State(_numpy_state, _set_numpy_state, DRAWS.format("numpy's global random state")),
        "folder": State(os.getcwd, os.chdir, SETS.format("the working directory")),
        "recursion": State(
            sys.getrecursionlimit, sys.setrecursionlimit, SETS.format("the recursion limit")
        ),
    }
    torch = sys.modules.get("torch")
    # While torch is being imported, it is there and has nothing yet.
    if torch is not None and hasattr(torch, "set_default_device"):
        states |= _random_states_of_torch(torch) | _settings_of_torch(torch)
    return states


def _random_states_of_torch(torch: Any) -> dict[str, State]:
    def tensor(state: bytes) -> Any:
        return torch.frombuffer(bytearray(state), dtype=torch.uint8)

    states = {
        "torch": State(
            lambda: torch.get_rng_state().numpy().tobytes(),
            lambda state: torch.set_rng_state(tensor(state)),
            DRAWS.format("torch's global random state"),
        )
    }
    if torch.cuda.is_initialized():
        states["torch on GPUs"] = State(
            lambda: [state.numpy().tobytes() for state in torch.cuda.get_rng_state_all()],
            lambda kept: torch.cuda.set_rng_state_all([tensor(state) for state in kept]),
            DRAWS.format("torch's global random state on GPUs"),
        )
    return states


def _settings_of_torch(torch: Any) -> dict[str, State]:
    settings: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Any]] = {
        "default dtype": (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        "default device": (
            lambda: str(torch.get_default_device()),
            # With a device set, even the same one, every new tensor takes a detour.
            lambda device: torch.set_default_device(None if device == "cpu" else device),
            "cpu",
        ),
        "number of threads": (torch.get_num_threads, torch.set_num_threads, None),
        "gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled, True),
        "precision of matrix products": (
            torch.get_float32_matmul_precision,
            torch.set_float32_matmul_precision,
            "highest",
        ),
        "use of deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
            False,
        ),
    }
    for device in ("cpu", "cuda"):
        settings[f"autocast on {device}"] = (
            partial(torch.is_autocast_enabled, device),
            partial(torch.set_autocast_enabled, device),
            False,
        )
        settings[f"dtype of autocast on {device}"] = (
            partial(torch.get_autocast_dtype, device),
            partial(torch.set_autocast_dtype, device),
            None,
        )
    return {
        f"torch's {name}": State(read, write, SETS.format(f"torch's {name}"), initial)
        for name, (read, write, initial) in settings.items()
    }


def _numpy_state() -> tuple[Any, ...]:
    """With its array as bytes, so that two states can be compared with `==`."""
    name, words, *rest = np.random.get_state(legacy=True)
    return (name, np.asarray(words).tobytes(), *rest)


def _set_numpy_state(state: tuple[Any, ...]) -> None:
    name, words, *rest = state
    np.random.set_state((name, np.frombuffer(words, dtype=np.uint32), *rest))
