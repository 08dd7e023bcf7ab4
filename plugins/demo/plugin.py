"""Offers the demo's model, text and tasks to suites, as any other plugin would."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mbench
from mbench_plugins import demo
from mbench_plugins.demo.text import identity


@mbench.hookimpl
def mbench_models() -> dict[str, Path]:
    """The embedded checkpoint."""
    return {"demo": demo.model_directory()}


@mbench.hookimpl
def mbench_corpora() -> dict[str, Callable[[str], list[str]]]:
    """Its corpora, with splits `train`, `calibration` and `evaluation`; `mixed` is all of them."""
    return {name: _Corpus(name) for name in demo.CORPORA} | {"mixed": _Corpus(*demo.CORPORA)}


@mbench.hookimpl
def mbench_task_directories() -> list[Path]:
    """Its cloze tasks."""
    return [demo.task_directory()]


class _Corpus:
    """One or more corpora after one another."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __call__(self, split: str) -> list[str]:
        return [text for name in self._names for text in demo.documents(name, split)]

    def identity(self, split: str) -> str:
        """What decides the documents, so that a plan need not read them."""
        return "; ".join(identity(name, split) for name in self._names)
