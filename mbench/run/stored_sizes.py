"""A stage of a run: what the checkpoints of the plan take in their files."""

from __future__ import annotations

from collections.abc import Iterator

from mbench.core.errors import ModelNotFound, UnsupportedModel
from mbench.core.model_facts import StoredSize
from mbench.plan.fact_keys import stored_size_key
from mbench.plan.models import PlannedModel
from mbench.run.session import ModelSession
from mbench.storage.hub.repository import recall
from mbench.storage.records import to_plain


def find_sizes(session: ModelSession) -> None:
    """Add the model's size to the outcome, and those of the checkpoints that are its rows.

    A size is not known where the files are neither here nor were, or for a reason that is told.
    """
    for model in _checkpoints(session):
        if model.name in session.outcome.sizes:
            continue
        key = stored_size_key(session.plan.code, model.name, model.key)
        size = recall(StoredSize, key, session.store)
        if size is None:
            size = _measured(session, model)
            if size is None:
                continue
            session.store.write_json(key, to_plain(size))
        session.outcome.sizes[model.name] = size


def _checkpoints(session: ModelSession) -> Iterator[PlannedModel]:
    yield session.model
    for cell in session.cells:
        if cell.method.published is not None:
            yield cell.method.published


def _measured(session: ModelSession, model: PlannedModel) -> StoredSize | None:
    if model.checkpoint is None or model.checkpoint.missing():
        return None
    from mbench.moe.stored_size import stored_size

    try:
        return stored_size(model.checkpoint.all_files())
    except ModelNotFound:
        # Damaged files are told of when they are loaded.
        return None
    except UnsupportedModel as error:
        session.progress.warning(f"{model.name}: its bytes as stored are not known: {error}")
        return None
