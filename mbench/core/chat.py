"""How prompts and calibration texts are put into a model's chat template; a part of suite files."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from mbench.core.suite_values import Strict, Words

TemplateValue = bool | int | float | str


def _day(date: Any) -> Any:
    """A date that is written as text, as in JSON."""
    return datetime.date.fromisoformat(date) if isinstance(date, str) else date


class ChatSpec(Strict):
    """A chat: whose template, and what it is filled with."""

    template: bool = True
    """Whether the tokenizer's chat template is used; false: as if there were no `chat` here."""
    system: Words | None = None
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
