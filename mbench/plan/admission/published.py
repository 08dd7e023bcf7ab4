"""Published checkpoints beside the full model: they must read the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mbench.core.admission import Finding
from mbench.core.errors import MbenchError
from mbench.plan.admission.check import Check
from mbench.plan.keys import admission_key
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan


def published_checks(plan: Plan) -> Iterator[Check]:
    """What every published checkpoint is, and that its tokenizer is the full model's."""
    models = {model.name: model for model in plan.models}
    suite = plan.suite
    chat = suite.chat is not None or any(task.chat is not None for task in suite.tasks.values())
    for cell in plan.cells:
        published, model = cell.method.published, models[cell.model]
        if published is None or not model.files_available:
            continue
        name = cell.method.name
        yield Check(partial(_sizes, name, model, published))
        key = admission_key(
            plan.code,
            f"the tokenizer of {name} beside that of {model.name}",
            {"name": name, "of": model.name, "chat": chat}
            | {"full": model.key, "published": published.key},
        )
        yield Check(partial(_tokenizer, name, model, published, chat), key)


def _sizes(name: str, model: PlannedModel, published: PlannedModel) -> Iterator[Finding]:
    kept, count = published.facts.num_experts, model.facts.num_experts
    words = f"{kept} of {count} experts, from {published.place_and_revision}"
    yield Finding("methods", name, "published checkpoint", words, model=model.name)


def _tokenizer(
    name: str, model: PlannedModel, published: PlannedModel, chat: bool
) -> Iterator[Finding]:
    from mbench.moe.tokenizer import difference

    try:
        words = difference(model.tokenizer, published.tokenizer, chat=chat)
    except MbenchError as error:
        words = str(error)
    if words:
        words += f": figures on other tokens cannot be compared with those of {model.name}"
        yield Finding("methods", name, "tokenizer", words, "refused", model.name)
    else:
        yield Finding("methods", name, "tokenizer", f"as that of {model.name}", model=model.name)
