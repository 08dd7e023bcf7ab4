"""How prompts and calibration texts are put into a model's chat template; a part of suite files."""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from pydantic import Field

from mbench.core.suite_values import Strict, Words

TemplateValue = bool | int | float | str


class ChatSpec(Strict):
    """A chat: whose template, and what it is filled with."""

    template: bool = True
    """Whether the tokenizer's chat template is used; false: as if there were no `chat` here."""
    system: Words | None = None
    """The system message; omitted: none, or what the template itself begins with."""
    multiturn: bool | None = None
    """Whether few-shot examples are turns of the conversation, and not one message; omitted: as
    lm-eval does by default."""
    options: Mapping[str, TemplateValue] = Field(default_factory=dict)
    """Further values for the template, e.g. `enable_thinking: false`."""
    date: datetime.date | None = None
    """Today, for templates that print the date; they are refused without it."""
