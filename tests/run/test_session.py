"""One model's share of a run: what is left of it when it is forgotten."""

from __future__ import annotations

import weakref

import torch

from helpers.tiny_suite import plan_of
from mbench.run.progress import Progress
from mbench.run.session import ModelSession, Outcome


def test_a_model_that_is_forgotten_leaves_its_gpu_to_other_processes(tmp_path, store, monkeypatch):
    plan = plan_of(tmp_path, store)
    session = ModelSession(plan, plan.models[0], store, Progress(), Outcome())
    gone = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: gone.append(model() is None))
    session.unload()
    assert gone == []
    with monkeypatch.context() as loading:
        loading.setattr(torch.cuda, "is_available", lambda: False)
        model = weakref.ref(session.load().model)
    session.unload()
    # Of the caching allocator's memory, only what nobody uses goes back.
    assert gone == [True]
