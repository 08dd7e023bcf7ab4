"""Writes the reference of suites.

`PYTHONPATH=tests python -m helpers.suite_reference > docs/suites.md`
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mbench.core.suite import ComponentSpec, Suite
from mbench.core.suite_schema import descriptions

HEAD = """\
# The keys of a suite file

A suite is strict: any other key, a key twice, or a value of another type is an error at its line
and column. **Bold** keys must be given. [quickstart.yaml](../suites/quickstart.yaml) is a complete
example.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_sections()])


def _sections() -> Iterator[str]:
    pending: list[tuple[str, str, type[BaseModel]]] = [("", "", Suite)]
    done: set[type[BaseModel]] = set()
    while pending:
        place, kind, model = pending.pop(0)
        if model in done:
            continue
        done.add(model)
        title = f"`{place}`{kind}" if place else "The suite"
        yield f"## {title}\n\n{cleandoc(model.__doc__ or '')}\n"
        yield "| key | value | default | |\n| --- | --- | --- | --- |"
        texts = descriptions(model)
        for name, field in model.model_fields.items():
            yield _row(name, field, texts.get(name, ""))
            inner = _models_in(field.annotation)
            own = f"{place}.{name}".lstrip(".") + (".NAME" if "Mapping" in str(field) else "")
            for found in (found for found in inner if found is not ComponentSpec):
                # Of several kinds, by the key that tells them apart.
                kind = f" with `{next(iter(found.model_fields))}`" if len(inner) > 1 else ""
                pending.append((own, kind, found))
        yield ""


def _row(name: str, field: FieldInfo, description: str) -> str:
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    default = "" if value is None else f"`{json.dumps(value)}`"
    needed = f"**`{name}`**" if field.is_required() else f"`{name}`"
    return f"| {needed} | {_kind(field)} | {default} | {_sentence(description)} |"


def _kind(field: FieldInfo) -> str:
    text = str(field.annotation)
    models = _models_in(field.annotation)
    if "Literal" in text:
        number = ["whole number"] if re.search(r"\bint\b", text) else []
        return " or ".join(number + [f"`{value}`" for value in _literals(field.annotation)])
    named = "component name, or its `name` with parameters" if ComponentSpec in models else "keys"
    if "Mapping" in text:
        each = "a value" if "bool" in text else "a number"
        return "names, each with keys" if models else f"names, each with {each}"
    if models:
        return named
    kinds = {
        "date": "date",
        "bool": "true or false",
        "float": "number",
        "int": "whole number",
        "str": "text",
    }
    kind = next((words for word, words in kinds.items() if re.search(rf"\b{word}\b", text)), text)
    return f"list of {kind}s".replace("texts", "names") if "tuple" in text else kind


def _literals(annotation: Any) -> list[str]:
    found = []
    for part in get_args(annotation):
        found += [part] if isinstance(part, str) else _literals(part)
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _sentence(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    print(reference(), end="")
