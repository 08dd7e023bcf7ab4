"""Published checkpoints and other stored forms of a model: they must read the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from mbench.core.admission import Finding
from mbench.core.errors import MbenchError
from mbench.plan.admission.check import Check
from mbench.plan.fact_keys import admission_key
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan


def published_checks(plan: Plan) -> Iterator[Check]:
    """What every published checkpoint is, and that its tokenizer is the full model's."""
    models = {model.name: model for model in plan.models}
    for cell in plan.cells:
        published, model = cell.method.published, models[cell.model]
        if published is not None and model.files_available:
            yield Check(partial(_sizes, cell.method.name, model, published))
            yield _same_tokenizer(plan, "methods", cell.method.name, model, published)
    for name, spec in plan.suite.models.items():
        pair = [models[each] for each in (spec.same_as, name) if each is not None]
        if len(pair) == 2 and all(model.files_available for model in pair):
            yield _same_tokenizer(plan, "models", name, *pair)


def _same_tokenizer(
    plan: Plan,
    section: Literal["methods", "models"],
    name: str,
    model: PlannedModel,
    other: PlannedModel,
) -> Check:
    suite = plan.suite
    chat = suite.chat is not None or any(task.chat is not None for task in suite.tasks.values())
    key = admission_key(
        plan.code,
        f"the tokenizer of {name} beside that of {model.name}",
        {"section": section, "name": name, "of": model.name, "chat": chat}
        | {"full": model.key, "other": other.key},
    )
    return Check(partial(_tokenizer, section, name, model, other, chat), key)


def _sizes(name: str, model: PlannedModel, published: PlannedModel) -> Iterator[Finding]:
    kept, count = published.facts.num_experts, model.facts.num_experts
    words = f"{kept} of {count} experts, from {published.place_and_revision}"
    yield Finding("methods", name, "published checkpoint", words, model=model.name)


def _tokenizer(
    section: Literal["methods", "models"],
    name: str,
    model: PlannedModel,
    other: PlannedModel,
    chat: bool,
) -> Iterator[Finding]:
    from mbench.moe.tokenizer import difference

    try:
        words = difference(model.tokenizer, other.tokenizer, chat=chat)
    except MbenchError as error:
        words = str(error)
    if words:
        words += f": figures on other tokens cannot be compared with those of {model.name}"
        yield Finding(section, name, "tokenizer", words, "refused", model.name)
    else:
        yield Finding(section, name, "tokenizer", f"as that of {model.name}", model=model.name)
