"""The first stage of a run: one forward pass per corpus for all statistics that are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mbench.core.errors import MbenchError, StoreError, caught
from mbench.core.provenance import CorpusProfile
from mbench.plan.cells import SHARDS, Cell, StatisticJob
from mbench.run.session import ModelSession
from mbench.storage.store import Key


def missing_jobs(session: ModelSession, cells: Sequence[Cell]) -> dict[str, list[StatisticJob]]:
    """Per corpus, the statistics that these cells need and the store has not."""
    missing: dict[str, dict[Key, StatisticJob]] = {}
    for cell in cells:
        for corpus, jobs in cell.statistics.items():
            for job in jobs:
                if not session.store.has_statistic(job.key):
                    missing.setdefault(corpus, {})[job.key] = job
    return {corpus: list(jobs.values()) for corpus, jobs in missing.items()}


def profile(session: ModelSession, missing: Mapping[str, Sequence[StatisticJob]]) -> dict[Key, str]:
    """Collect and store what is missing; returns why for each statistic that could not be."""
    problems: dict[Key, str] = {}
    for corpus, jobs in missing.items():
        try:
            with session.timed("profile"):
                failures = _profile_corpus(session, corpus, jobs)
        except StoreError:
            raise
        except Exception as error:
            problem = f"no profile on {corpus}: {caught(error)}"
            problems.update((job.key, problem) for job in jobs)
            session.progress.warning(f"{session.model.name}: {problem}")
            continue
        for job in jobs:
            failure = failures.get(job.statistic.identity)
            if failure is not None:
                problems[job.key] = f"on {corpus}: {caught(failure)}"
                session.progress.warning(f"{session.model.name} {problems[job.key]}")
    return problems


def _profile_corpus(
    session: ModelSession, corpus: str, jobs: Sequence[StatisticJob]
) -> Mapping[str, MbenchError]:
    """One pass for all statistics; returns, by identity, why some of them failed."""
    from mbench.moe.profile import profile_corpus

    suite = session.plan.suite
    loaded = session.load()
    session.progress.stage(f"profile {session.model.name} on {corpus}")
    collected = profile_corpus(
        loaded,
        session.plan.texts[corpus],
        suite.corpora[corpus],
        [job.statistic for job in jobs],
        batch_tokens=suite.batch_tokens,
        shards=SHARDS,
        advance=session.advance,
    )
    tokens = collected.tokens
    for job in jobs:
        identity = job.statistic.identity
        if identity in collected.failures:
            continue
        sums = collected.sums.get(identity, {})
        samples = collected.samples.get(identity, {})
        facts = {"tokens": tokens, "corpus": corpus, **routing_facts(sums, tokens)}
        session.store.write_statistic(job.key, facts, sums, samples)
    session.progress.event("profile", model=session.model.name, corpus=corpus, tokens=tokens)
    return collected.failures


def routing_facts(sums: dict[str, np.ndarray], tokens: int) -> dict[str, Any]:
    """What readers of a report should know of the routing, where it was counted.

    Experts that no token selected have no mean score; the gates' mass bounds how much a sliced
    router can inflate the gates of a model that does not renormalise them.
    """
    if not {"count", "gate"} <= sums.keys():
        return {}
    mass = sums["gate"].sum(axis=(0, 2)) / tokens
    return {
        "experts never selected": int((sums["count"].sum(axis=0) == 0).sum()),
        "top-k gate mass by layer": [round(float(value), 4) for value in mass],
    }


def remember_facts(session: ModelSession) -> None:
    """Put what was stored beside the statistics into the outcome."""
    for cell in session.cells:
        for corpus, jobs in cell.statistics.items():
            known: dict[str, Any] = {}
            for job in jobs:
                if session.store.has_statistic(job.key):
                    known |= session.store.read_statistic_facts(job.key)
            if known:
                session.outcome.profiles[session.model.name, corpus] = CorpusProfile(
                    tokens=known["tokens"],
                    never_selected=known.get("experts never selected"),
                    gate_mass=tuple(known.get("top-k gate mass by layer", ())),
                )
