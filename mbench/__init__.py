"""mbench: compare expert-pruning methods for sparse Mixture-of-Experts language models.

The names below are everything a plugin may import. They load on first use, so that the command
line starts at once.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mbench.basics import AsSelected, TopK
    from mbench.errors import Infeasible, MbenchError, PluginError, UnsupportedModel
    from mbench.hookspecs import hookimpl
    from mbench.interfaces import (
        Budget,
        Component,
        ExpertMask,
        LayerBatch,
        MaskBuilder,
        Method,
        Parameters,
        Profile,
        Scorer,
        Scores,
        Selection,
        Selector,
        Statistic,
        Use,
    )
    from mbench.moe.routing_sums import RoutingSums
    from mbench.panels import Panel
    from mbench.results import Results, long_form
    from mbench.results_files import load_results

_HOME = {
    "AsSelected": "basics",
    "Budget": "interfaces",
    "Component": "interfaces",
    "ExpertMask": "interfaces",
    "Infeasible": "errors",
    "LayerBatch": "interfaces",
    "MaskBuilder": "interfaces",
    "MbenchError": "errors",
    "Method": "interfaces",
    "Panel": "panels",
    "Parameters": "interfaces",
    "PluginError": "errors",
    "Profile": "interfaces",
    "Results": "results",
    "RoutingSums": "moe.routing_sums",
    "Scorer": "interfaces",
    "Scores": "interfaces",
    "Selection": "interfaces",
    "Selector": "interfaces",
    "Statistic": "interfaces",
    "TopK": "basics",
    "UnsupportedModel": "errors",
    "Use": "interfaces",
    "hookimpl": "hookspecs",
    "load_results": "results_files",
    "long_form": "results",
}

__all__ = [
    "AsSelected",
    "Budget",
    "Component",
    "ExpertMask",
    "Infeasible",
    "LayerBatch",
    "MaskBuilder",
    "MbenchError",
    "Method",
    "Panel",
    "Parameters",
    "PluginError",
    "Profile",
    "Results",
    "RoutingSums",
    "Scorer",
    "Scores",
    "Selection",
    "Selector",
    "Statistic",
    "TopK",
    "UnsupportedModel",
    "Use",
    "hookimpl",
    "load_results",
    "long_form",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mbench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mbench.{_HOME[name]}"), name)
