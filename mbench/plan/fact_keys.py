"""The keys of what is counted or measured: sizes, texts of items, findings of admission, speeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mbench.plan.computing_code import Code
from mbench.plan.keys import ModelIdentity
from mbench.storage.store import Key


def efficiency_key(
    code: Code, model: ModelIdentity, kept: int, settings: Mapping[str, Any], device: str
) -> Key:
    """What one budget saves, on the machine that it is measured on."""
    return Key.of(
        "efficiency",
        f"{model.name} with {kept} experts per layer on {device}",
        {
            "kind": "efficiency",
            "code": code.of("efficiency"),
            "versions": dict(code.versions),
            "model": model.parts(),
            "kept": kept,
            "settings": dict(settings),
            "device": device,
        },
    )


def model_facts_key(code: Code, name: str, content: str, fields: Sequence[str]) -> Key:
    """What is known of a model without its weights; other code may find other layers."""
    return Key.of(
        "facts",
        f"sizes of {name}",
        {
            "kind": "model facts",
            "code": code.of("model facts"),
            "versions": dict(code.versions),
            "fields": list(fields),
            "model": content,
        },
    )


def stored_size_key(code: Code, name: str, content: str) -> Key:
    """What a model's tensors take in its files, known once they are here."""
    return Key.of(
        "facts",
        f"bytes of {name} as stored",
        {
            "kind": "stored size",
            "code": code.of("stored size"),
            "versions": dict(code.versions),
            "model": content,
        },
    )


def task_size_key(
    code: Code, model: ModelIdentity, task_name: str, fingerprint: Mapping[str, Any]
) -> Key:
    """The items of a task and the forward tokens of one mask, known once it was built."""
    return Key.of(
        "facts",
        f"size of {task_name} for {model.name}",
        {
            "kind": "task size",
            "code": code.of("task size"),
            "model": model.content,
            "task": dict(fingerprint),
        },
    )


def item_texts_key(
    code: Code, task_name: str, fingerprint: Mapping[str, Any], model: ModelIdentity | None
) -> Key:
    """What a task's items ask, for readers; of a model where its chat template is part of it."""
    of_model = {} if model is None else {"model": model.content}
    return Key.of(
        "facts",
        f"items of {task_name}" if model is None else f"items of {task_name} for {model.name}",
        {
            "kind": "item texts",
            "code": code.of("item texts"),
            "task": dict(fingerprint),
            **of_model,
        },
    )


def admission_key(code: Code, what: str, inputs: Mapping[str, Any]) -> Key:
    """What was found out about an input, e.g. a task on a model; `inputs` are their contents."""
    return Key.of(
        "facts",
        f"admission of {what}",
        {
            "kind": "admission",
            "code": code.of("admission"),
            "versions": dict(code.versions),
            "what": what,
            "inputs": dict(inputs),
        },
    )


def speed_key(model: ModelIdentity, machine: str) -> Key:
    """How fast a machine evaluated a model the last time; it only guesses how long a run takes."""
    return Key.of(
        "facts",
        f"speed of {model.name} on {machine}",
        {"kind": "speed", "machine": machine, "model": model.parts()},
    )
