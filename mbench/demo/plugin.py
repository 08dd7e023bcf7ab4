"""Offers the demo's model, text and tasks to suites, as any other plugin would."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import mbench
from mbench import demo


@mbench.hookimpl
def mbench_models() -> dict[str, Path]:
    """The embedded checkpoint."""
    return {"demo": demo.model_directory()}


@mbench.hookimpl
def mbench_corpora() -> dict[str, Callable[[str], list[str]]]:
    """Its corpora, with splits `train`, `calibration` and `evaluation`; `mixed` is all of them."""
    single = {name: partial(demo.documents, name) for name in demo.CORPORA}
    return {**single, "mixed": _mixed}


@mbench.hookimpl
def mbench_task_directories() -> list[Path]:
    """Its cloze tasks."""
    return [demo.task_directory()]


def _mixed(split: str) -> list[str]:
    return [text for name in demo.CORPORA for text in demo.documents(name, split)]
