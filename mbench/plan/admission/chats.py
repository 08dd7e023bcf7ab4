"""Chat templates that prompts of tasks are put into: whether each model has one that takes them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from mbench.core.admission import Finding, Level
from mbench.core.chat import ChatSpec
from mbench.core.errors import ChatError, MbenchError
from mbench.plan.admission.check import Check, RefusedElsewhere
from mbench.plan.admission.models import model_inputs
from mbench.plan.fact_keys import admission_key
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan

if TYPE_CHECKING:
    from mbench.moe.chat.template import ChatTemplate

QUESTION = {"role": "user", "content": "Which is it?"}


def chat_checks(plan: Plan) -> Iterator[Check]:
    """Every model whose files are here with every chat that tasks ask for."""
    chats: dict[str, tuple[ChatSpec, list[str]]] = {}
    for task in plan.tasks:
        if task.chat is not None:
            chats.setdefault(str(task.chat.parts()), (task.chat, []))[1].append(task.name)
    for model in plan.models:
        if not model.files_available:
            continue
        for chat, tasks in chats.values():
            inputs = {**model_inputs(model), "chat": chat.parts(), "tasks": tasks}
            key = admission_key(plan.code, f"the chat template of {model.name}", inputs)
            yield Check(partial(_chat, model, chat, ", ".join(tasks)), key)


def refused(model: PlannedModel, chat: ChatSpec) -> bool:
    """Whether a model's template takes no prompt as this chat asks, which is told above."""
    try:
        _template(model, chat)
    except ChatError:
        return True
    return False


def _template(model: PlannedModel, chat: ChatSpec) -> ChatTemplate:
    """Raises `ChatError` where it takes no question, or not the system message of the suite."""
    from mbench.moe.chat.template import ChatTemplate, TemplateRefusal

    template = ChatTemplate(model.tokenizer, chat)
    template.render([QUESTION], add_generation_prompt=True)
    asked = _asked(chat)
    try:
        text = template.render(asked, add_generation_prompt=True)
    except TemplateRefusal as error:
        raise ChatError(f"it takes no system message, but `system` is given: {error}") from None
    # E.g. those of models of images, which take lists of parts, and see none in a text.
    for at, message in enumerate(asked):
        other = {**message, "content": f"{message['content']}."}
        changed = [*asked[:at], other, *asked[at + 1 :]]
        if template.render(changed, add_generation_prompt=True) == text:
            raise ChatError(f"it leaves out what the {message['role']} says")
    return template


def _asked(chat: ChatSpec) -> list[dict[str, str]]:
    system = [] if chat.system is None else [{"role": "system", "content": chat.system}]
    return [*system, QUESTION]


def _chat(model: PlannedModel, chat: ChatSpec, tasks: str) -> Iterator[Finding]:
    def found(words: str, level: Level = "fine") -> Finding:
        return Finding("models", model.name, "chat template", words, level, model.name)

    try:
        template = _template(model, chat)
    except ChatError as error:
        yield found(f"{error}; it is asked for by the `chat` of {tasks}", "refused")
        return
    except MbenchError:
        raise RefusedElsewhere from None
    yield found(f"used for {tasks}")
    for option in template.unread:
        yield found(f"it does not read the option {option!r}, which changes nothing", "note")
    if chat.date is not None and not template.dated(_asked(chat)):
        yield found("it prints no date, so that `date` changes nothing", "note")
