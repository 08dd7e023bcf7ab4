"""The schema of suite files as JSON Schema, by which editors complete and check them."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from inspect import cleandoc, getsource
from itertools import pairwise
from typing import Any

from pydantic import BaseModel

from mbench.core.suite import Suite
from mbench.core.suite_values import MOST_SEEDS, Strict

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def suite_schema() -> dict[str, Any]:
    """All that one key alone can show: names, types, bounds, and which keys stand together.

    What depends on plugins, on files or on other keys is left to `mbench check`.
    """
    schema = Suite.model_json_schema()
    kinds = schema["$defs"]
    for model in _models(Strict):
        place = schema if model is Suite else kinds[model.__name__]
        for name, words in descriptions(model).items():
            described = {**place["properties"][name], "description": words}
            place["properties"][name] = dict(sorted(described.items()))
    for method in (*_values(schema, "methods"), *_values(schema, "candidates")):
        _or(method, {"type": "null"})  # `random:` alone
    _or(kinds["ComponentSpec"], {"type": "string"})
    number = {"type": "integer", "minimum": 1, "maximum": MOST_SEEDS}
    for place in (schema, kinds["MethodSpec"]):
        _or(place["properties"]["seeds"], number)
    for name, sources in (("ModelSpec", "hub path plugin"), ("TextSource", "hub files plugin")):
        kinds[name]["oneOf"] = [{"required": [source]} for source in sources.split()]
    kinds["PerplexityTask"] |= {
        "if": {
            "properties": {"protocol": {"enum": ["gptq", "document"]}},
            "required": ["protocol"],
        },
        "then": {"properties": {"stride": {"type": "null"}}},
        "else": {"required": ["stride"]},
    }
    for place in (schema, *kinds.values()):
        for value in place.get("properties", {}).values():
            if "patternProperties" in value:
                value["additionalProperties"] = False
    return {"$schema": DIALECT, **schema, "title": "A suite of mbench"}


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the text below it in the source.

    Pydantic would read it whenever a suite is loaded, which takes longer than all else of it.
    """
    texts: dict[str, str] = {}
    for each in reversed(model.__mro__):
        if each is not Strict and issubclass(each, Strict):
            (body,) = (node.body for node in _classes(each) if node.name == each.__name__)
            for field, after in pairwise(body):
                match field, after:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(text))),
                    ):
                        texts[name] = cleandoc(text)
    return texts


def _classes(model: type) -> Iterator[ast.ClassDef]:
    tree = ast.parse(getsource(sys.modules[model.__module__]))
    return (node for node in tree.body if isinstance(node, ast.ClassDef))


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def _values(schema: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """Schemas of the values of a mapping by name."""
    return list(schema["properties"][key]["patternProperties"].values())


def _or(schema: dict[str, Any], other: dict[str, Any]) -> None:
    """Allow another form, and keep what is said about it."""
    words: dict[str, Any] = {
        key: schema.pop(key) for key in ("description", "default", "title") if key in schema
    }
    if set(schema) == {"anyOf"}:
        schema["anyOf"].append(other)
    else:
        former = dict(schema)
        schema.clear()
        schema["anyOf"] = [former, other]
    schema |= words
