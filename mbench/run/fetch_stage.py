"""The first stage of a run: what it needs of the hub is fetched, and the hub then left alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mbench.core.interfaces import WEIGHTS_ONLY
from mbench.plan.plan import Plan
from mbench.run.progress import Progress
from mbench.storage.hub.offline import offline
from mbench.storage.inputs import Fetchable


def fetch(needed: Iterable[Fetchable], progress: Progress) -> None:
    """Have these files on disk, and every byte compared, then ask the hub for nothing more.

    What cannot be fetched costs what needs it, and is told there.
    """
    distinct = list({id(each): each for each in needed}.values())
    size = sum(each.missing() for each in distinct)
    progress.stage("fetch what is on the hub" if size else "compare what was fetched")
    with progress.fetching(size) as advance:
        for each in distinct:
            each.fetch(advance)
    offline()


def all_inputs(plan: Plan) -> list[Fetchable]:
    """Everything that a run of the plan may need, were nothing in the store."""
    models = [model.checkpoint for model in plan.checkpoints if model.checkpoint is not None]
    texts = [text.fetchable for text in plan.texts.values()]
    tasks = [each for task in plan.tasks for each in task.fetchables]
    return [each for each in (*models, *texts, *tasks) if each is not None]


def texts_of(plan: Plan, corpora: Iterable[str]) -> Iterator[Fetchable]:
    """What calibration corpora are cut from, those of all parts of a mix."""
    for corpus in corpora:
        # What is read from weights alone has no text.
        for part in () if corpus == WEIGHTS_ONLY else plan.corpora[corpus].parts:
            if part.text.fetchable is not None:
                yield part.text.fetchable
