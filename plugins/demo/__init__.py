"""The embedded demo: a small trained Mixture-of-Experts model, real text, and tasks made of it."""

from __future__ import annotations

from pathlib import Path

from mbench_plugins.demo.text import CORPORA, MissingText, documents

__all__ = ["CORPORA", "MissingText", "documents", "model_directory", "task_directory"]


def model_directory() -> Path:
    """The checkpoint and its tokenizer, for AutoModelForCausalLM and AutoTokenizer."""
    return Path(__file__).parent / "model"


def task_directory() -> Path:
    """The folder of lm-eval task files, for its TaskManager's `include_path`."""
    return Path(__file__).parent / "tasks"
