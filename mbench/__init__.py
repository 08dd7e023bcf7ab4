"""mbench: compare expert-pruning methods for sparse Mixture-of-Experts language models.

The names below are everything a plugin may import. They load on first use, so that the command
line starts at once.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mbench.api.calls import identify, plan, run, scores
    from mbench.api.identifying import Identified, KnownMask
    from mbench.api.views import PlannedRun, RunResults, ranked
    from mbench.core.basics import AsSelected, CoActivation, RoutingSums, TopK
    from mbench.core.errors import (
        CorpusError,
        Infeasible,
        MbenchError,
        PluginError,
        SearchLimit,
        UnsupportedModel,
    )
    from mbench.core.hookspecs import Panel, hookimpl
    from mbench.core.interfaces import (
        Budget,
        Component,
        ExpertMask,
        MaskBuilder,
        Method,
        Profile,
        Scorer,
        Scores,
        Selection,
        Selector,
        Statistic,
        Use,
    )
    from mbench.core.layer_data import ExpertWeights, LayerBatch, LayerWeights
    from mbench.core.parameters import Parameters
    from mbench.core.results import Results, long_form
    from mbench.core.search import MaskSearch, Probe, SearchParameters
    from mbench.core.stand_ins import Constants, Merged
    from mbench.moe.pruned_form import load_pruned
    from mbench.storage.results_folder import load_results

_HOME = {
    "AsSelected": "core.basics",
    "Budget": "core.interfaces",
    "CoActivation": "core.basics",
    "Component": "core.interfaces",
    "Constants": "core.stand_ins",
    "CorpusError": "core.errors",
    "ExpertMask": "core.interfaces",
    "ExpertWeights": "core.layer_data",
    "Identified": "api.identifying",
    "Infeasible": "core.errors",
    "KnownMask": "api.identifying",
    "LayerBatch": "core.layer_data",
    "LayerWeights": "core.layer_data",
    "MaskBuilder": "core.interfaces",
    "MaskSearch": "core.search",
    "MbenchError": "core.errors",
    "Merged": "core.stand_ins",
    "Method": "core.interfaces",
    "Panel": "core.hookspecs",
    "Parameters": "core.parameters",
    "PlannedRun": "api.views",
    "PluginError": "core.errors",
    "Probe": "core.search",
    "Profile": "core.interfaces",
    "Results": "core.results",
    "RoutingSums": "core.basics",
    "RunResults": "api.views",
    "Scorer": "core.interfaces",
    "Scores": "core.interfaces",
    "SearchLimit": "core.errors",
    "SearchParameters": "core.search",
    "Selection": "core.interfaces",
    "Selector": "core.interfaces",
    "Statistic": "core.interfaces",
    "TopK": "core.basics",
    "UnsupportedModel": "core.errors",
    "Use": "core.interfaces",
    "hookimpl": "core.hookspecs",
    "identify": "api.calls",
    "load_pruned": "moe.pruned_form",
    "load_results": "storage.results_folder",
    "long_form": "core.results",
    "ranked": "api.views",
    "scores": "api.calls",
}

__all__ = [
    "AsSelected",
    "Budget",
    "CoActivation",
    "Component",
    "Constants",
    "CorpusError",
    "ExpertMask",
    "ExpertWeights",
    "Identified",
    "Infeasible",
    "KnownMask",
    "LayerBatch",
    "LayerWeights",
    "MaskBuilder",
    "MaskSearch",
    "MbenchError",
    "Merged",
    "Method",
    "Panel",
    "Parameters",
    "PlannedRun",
    "PluginError",
    "Probe",
    "Profile",
    "Results",
    "RoutingSums",
    "RunResults",
    "Scorer",
    "Scores",
    "SearchLimit",
    "SearchParameters",
    "Selection",
    "Selector",
    "Statistic",
    "TopK",
    "UnsupportedModel",
    "Use",
    "hookimpl",
    "identify",
    "load_pruned",
    "load_results",
    "long_form",
    "plan",
    "ranked",
    "run",
    "scores",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mbench' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mbench.{_HOME[name]}"), name)


class _Callable(ModuleType):
    """`mbench.plan` and `mbench.run` are functions of the API, and folders of mbench as well."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)

    @property
    def __signature__(self) -> Any:
        import inspect

        return inspect.signature(self._function)

    @property
    def _function(self) -> Any:
        calls = importlib.import_module("mbench.api.calls")
        return getattr(calls, self.__name__.rpartition(".")[2])


for _folder in ("plan", "run"):
    importlib.import_module(f"mbench.{_folder}")
    sys.modules[f"mbench.{_folder}"].__class__ = _Callable
