"""How prompts and calibration texts are put into a model's chat template; a part of suite files."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from mbench.core.suite_values import Strict, Words


def _day(date: Any) -> Any:
    """A date that is written as text, as in JSON."""
    if not isinstance(date, str):
        return date
    try:
        return datetime.date.fromisoformat(date)
    except ValueError:
        raise ValueError("a day is written as 2026-01-31") from None


def _value(value: Any) -> Any:
    if not isinstance(value, bool | int | float | str):
        raise ValueError("a template's value is true, false, a number or a text")
    return value


TemplateValue = Annotated[bool | int | float | str, BeforeValidator(_value)]


class ChatSpec(Strict):
    """A chat: whose template, and what it is filled with."""

    template: bool = True
    """Whether the tokenizer's chat template is used; false: as if there were no `chat` here."""
    system: Annotated[Words, Field(min_length=1)] | None = None
    """The system message; omitted: none, or what the template itself begins with."""
    multiturn: bool | None = None
    """Whether few-shot examples are turns of the conversation, as in lm-eval by default; false:
    they stand in one message with the question. Of prompts only."""
    options: Mapping[str, TemplateValue] = Field(default_factory=dict)
    """Further values for the template, e.g. `enable_thinking: false`."""
    date: Annotated[datetime.date, BeforeValidator(_day)] | None = None
    """Today, for templates that print the date; they are refused without it. Templates that take it
    as `date_string` are given it as Llama 3 writes it, `01 Jan 2026`; for another way give
    `options: {date_string: ...}`."""

    @model_validator(mode="after")
    def _nothing_beside_false(self) -> ChatSpec:
        others = sorted(self.model_fields_set - {"template"})
        if not self.template and others:
            raise ValueError(f"{others[0]} means nothing where template is false")
        return self

    @property
    def turns(self) -> bool:
        """Whether few-shot examples are turns of the conversation."""
        return self.multiturn is not False

    def parts(self) -> dict[str, Any]:
        """All that decides a prompt beside the template itself, as JSON values."""
        return {
            "system": self.system,
            "multiturn": self.turns,
            "options": dict(self.options),
            "date": None if self.date is None else self.date.isoformat(),
        }
