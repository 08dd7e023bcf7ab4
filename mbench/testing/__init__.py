"""For authors of methods, from pytest: synthetic models, and checks that any method must pass."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbench.testing.conformance import CHECKS, check_method, conformance_tests
    from mbench.testing.failures import ConformanceError
    from mbench.testing.synthetic import Planted, SyntheticModel
    from mbench.testing.synthetic_layers import Size
    from mbench.testing.synthetic_probe import SyntheticProbe

_HOME = {
    "CHECKS": "conformance",
    "ConformanceError": "failures",
    "Planted": "synthetic",
    "Size": "synthetic_layers",
    "SyntheticModel": "synthetic",
    "SyntheticProbe": "synthetic_probe",
    "check_method": "conformance",
    "conformance_tests": "conformance",
}

__all__ = [
    "CHECKS",
    "ConformanceError",
    "Planted",
    "Size",
    "SyntheticModel",
    "SyntheticProbe",
    "check_method",
    "conformance_tests",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mbench.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mbench.testing.{_HOME[name]}"), name)
