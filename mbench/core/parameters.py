"""The parameters of a component, as a suite gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_jsonable_python


class Parameters(BaseModel):
    """Base of a component's parameters: unknown keys are errors, values cannot change later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def plain_parameters(params: BaseModel) -> dict[str, Any]:
    """All fields of a component's parameters as JSON values: equal for equal parameters.

    Raises `ValueError` for a field that has no such form.
    """
    return {name: _plain(getattr(params, name)) for name in type(params).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return plain_parameters(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        # Their own order changes from one process to the next.
        return sorted((_plain(item) for item in value), key=repr)
    return to_jsonable_python(value)
