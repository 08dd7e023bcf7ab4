"""A model's chat template: conversations as the text that the model was trained to read.

Rendered by transformers' own code, with two differences: a template cannot loop or grow without
end, and what it takes for today is a date that the suite pins. A template that prints today's date
is found out by rendering at two dates.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from datetime import datetime, time
from typing import TYPE_CHECKING, Any

from jinja2 import Template, meta
from jinja2.exceptions import SecurityError, TemplateError
from transformers.utils import chat_template_utils

from mbench.core.chat import ChatSpec
from mbench.core.errors import ChatError, one_line, shown
from mbench.core.replaced import replaced
from mbench.moe.chat.bounds import BoundedEnvironment

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DATES = (datetime(2001, 2, 3, 4, 5, 6), datetime(2032, 11, 25, 17, 48, 59))
"""Two times that no way of writing a date or time writes alike."""

DATE_STRING = "%d %b %Y"
"""How Llama 3's templates write the date that they take as `date_string`."""


class TemplateRefusal(ChatError):
    """The template itself raised an error on these messages, e.g. as it takes no system message."""


class _Clock:
    """What a template takes for now."""

    def __init__(self) -> None:
        self.now = DATES[0]
        self.asked = False
        """Whether it was looked at."""

    def strftime(self, form: str) -> str:
        self.asked = True
        return self.now.strftime(form)


class ChatTemplate:
    """The chat template of one tokenizer, filled as a suite says."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat: ChatSpec) -> None:
        """Compile it.

        Args:
            tokenizer: whose template; of several, the one named `default`, as in transformers.
            chat: of which `options` and `date` count here; the messages are up to the caller.

        Raises:
            ChatError: there is no template, none of several is the default, it cannot be compiled,
                or an option is no value of a template but decides how it is rendered.
        """
        self._tokenizer = tokenizer
        self._chat = chat
        self._clock = _Clock()
        text = _text_of(tokenizer)
        self._compiled = _compiled(text, self._clock)
        parsed = self._compiled.environment.parse(text)
        self._reads = frozenset(meta.find_undeclared_variables(parsed))
        taken = {*inspect.signature(tokenizer.apply_chat_template).parameters, "messages"}
        for option in chat.options:
            if option in taken:
                raise ChatError(f"option {option!r} is no value that a chat template is given")

    @property
    def unread(self) -> tuple[str, ...]:
        """Options that the template does not read, so that they change nothing."""
        return tuple(name for name in self._chat.options if name not in self._reads)

    def dated(self, messages: Sequence[Mapping[str, Any]]) -> bool:
        """Whether these messages are rendered with the date; raises as `render`."""
        other = self._chat.model_copy(update={"date": DATES[1].date()})
        return self.render(messages) != ChatTemplate(self._tokenizer, other).render(messages)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
    ) -> str:
        """A conversation as text, with whatever special tokens the template writes.

        Args:
            messages: `{role: ..., content: ...}` each.
            add_generation_prompt: whether it ends with the beginning of the assistant's answer.
            continue_final_message: whether it ends within the last message, so that more can
                follow.

        Raises:
            TemplateRefusal: the template raised an error.
            ChatError: it prints today's date and there is no `date`, or it loops or grows without
                end.
        """
        values: dict[str, Any] = dict(self._chat.options)
        date = self._chat.date
        end: dict[str, Any] = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
        }
        text, dated = self._at(DATES[0] if date is None else _begin(date), messages, values, end)
        if date is None:
            if dated and self._at(DATES[1], messages, values, end)[0] != text:
                raise ChatError("its chat template prints today's date: give `date` in `chat`")
        elif not dated and "date_string" in self._reads and "date_string" not in values:
            # It prints a date of its own unless it is told one.
            values["date_string"] = date.strftime(DATE_STRING)
            text, _ = self._at(_begin(date), messages, values, end)
        return text

    def _at(
        self,
        now: datetime,
        messages: Sequence[Mapping[str, Any]],
        values: Mapping[str, Any],
        end: Mapping[str, Any],
    ) -> tuple[str, bool]:
        """The text at some time, and whether the template asked for the time."""
        self._clock.now, self._clock.asked = now, False
        compiled = replaced(chat_template_utils, "_compile_jinja_template", self._own)
        try:
            with compiled:
                text = self._tokenizer.apply_chat_template(
                    [dict(message) for message in messages], tokenize=False, **end, **values
                )
        # Code of others on data of others: what it raises, nobody can foresee.
        except Exception as error:
            if isinstance(error, TemplateError) and not isinstance(error, SecurityError):
                raise TemplateRefusal(f"its chat template says: {shown(str(error))}") from error
            raise ChatError(f"its chat template fails: {one_line(error)}") from error
        assert isinstance(text, str)
        return text, self._clock.asked

    def _own(self, _text: str) -> Template:
        return self._compiled


def _begin(date: Any) -> datetime:
    return datetime.combine(date, time())


def _text_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """The text of the template that transformers would take."""
    found = getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict) and "default" not in found:
        names = ", ".join(sorted(found))
        raise ChatError(f"its tokenizer has several chat templates and no default: {names}")
    text = found["default"] if isinstance(found, dict) else found
    if not text:
        raise ChatError("its tokenizer has no chat template")
    return str(text)


def _compiled(text: str, clock: _Clock) -> Template:
    """Compile as transformers does it, in an environment that is bounded and has this clock."""
    # Not from its cache, where templates are that were compiled without bounds.
    compile_anew = chat_template_utils._compile_jinja_template.__wrapped__
    bounded = replaced(chat_template_utils, "ImmutableSandboxedEnvironment", BoundedEnvironment)
    try:
        with bounded:
            compiled: Template = compile_anew(text)
    except Exception as error:
        raise ChatError(f"its chat template cannot be compiled: {one_line(error)}") from error
    compiled.environment.globals["strftime_now"] = clock.strftime
    return compiled
