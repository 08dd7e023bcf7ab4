"""Offers the demo's model, text and tasks to suites, as any other plugin would."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import mbench

from .text import CORPORA, documents, identity

MODEL = Path(__file__).parent / "model"
"""The checkpoint and its tokenizer, for AutoModelForCausalLM and AutoTokenizer."""

MODEL_IN_FP8 = Path(__file__).parent / "model_fp8"
"""The same, as `store_in_fp8` writes it."""

TASKS = Path(__file__).parent / "tasks"
"""The folder of lm-eval task files, for its TaskManager's `include_path`."""


@mbench.hookimpl
def mbench_models() -> dict[str, Path]:
    """The embedded checkpoint, as it was trained and stored in FP8."""
    return {"demo": MODEL, "demo-fp8": MODEL_IN_FP8}


@mbench.hookimpl
def mbench_corpora() -> Mapping[str, Callable[[str], list[str]]]:
    """Its corpora, with splits `train`, `calibration` and `evaluation`; `mixed` is all of them."""
    return {name: _Corpus(name) for name in CORPORA} | {"mixed": _Corpus(*CORPORA)}


@mbench.hookimpl
def mbench_task_directories() -> list[Path]:
    """Its cloze tasks."""
    return [TASKS]


class _Corpus:
    """One or more corpora, concatenated."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __call__(self, split: str) -> list[str]:
        return [text for name in self._names for text in documents(name, split)]

    def identity(self, split: str) -> str:
        """A text that changes with the documents, so that a plan need not read them."""
        return "; ".join(identity(name, split) for name in self._names)
