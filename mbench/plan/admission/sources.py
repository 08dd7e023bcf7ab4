"""Where inputs come from: the commits that repositories of the hub stand at."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from mbench.core.admission import Finding
from mbench.core.errors import CorpusError
from mbench.plan.admission.check import Check, RefusedElsewhere
from mbench.plan.plan import Plan
from mbench.storage.checkpoints import OnHub
from mbench.storage.hub.repository import Repository
from mbench.storage.texts import Text

Section = Literal["models", "methods", "corpora", "perplexity", "tasks"]


def source_checks(plan: Plan) -> Iterator[Check]:
    """The commit of every model, text and task that is on the hub."""
    for model in plan.models:
        if isinstance(model.checkpoint, OnHub):
            yield Check(partial(_commit, "models", model.name, model.checkpoint.repository))
    for cell in plan.cells:
        published = cell.method.published
        if published is not None and isinstance(published.checkpoint, OnHub):
            yield Check(
                partial(_commit, "methods", cell.method.name, published.checkpoint.repository)
            )
    for name, text in plan.texts.items():
        if text.source.hub is not None:
            yield Check(partial(_commit_of_text, "corpora", name, text))
    for task in plan.tasks:
        if task.text is not None and task.text.source.hub is not None:
            yield Check(partial(_commit_of_text, "perplexity", task.name, task.text))
        datasets = (data.dataset for data in task.data)
        repositories = {str(each.repository): each.repository for each in datasets if each}
        for repository in repositories.values():
            yield Check(partial(_commit, "tasks", task.name, repository))


def _commit_of_text(section: Section, name: str, text: Text) -> Iterator[Finding]:
    try:
        repository = text.dataset.repository
    except CorpusError:
        raise RefusedElsewhere from None
    yield from _commit(section, name, repository)


def _commit(section: Section, name: str, repository: Repository) -> Iterator[Finding]:
    at = f" (revision {repository.revision})" if repository.revision else ""
    words = f"{repository} at commit {repository.commit}{at}"
    yield Finding(section, name, "from the hub", words)
