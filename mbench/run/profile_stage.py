"""The first stage of a run: one forward pass per corpus for all statistics that are missing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mbench.core.basics import RoutingSums
from mbench.core.errors import MbenchError, PluginError, StoreError, caught
from mbench.core.interfaces import WEIGHTS_ONLY, Statistic
from mbench.core.run_record import CorpusProfile
from mbench.plan.cells import SHARDS, Cell, StatisticJob
from mbench.run.session import ModelSession
from mbench.storage.artefacts import canonical
from mbench.storage.store import Key

if TYPE_CHECKING:
    from mbench.moe.load import LoadedModel
    from mbench.moe.profile import Collected


def missing_jobs(session: ModelSession, cells: Sequence[Cell]) -> dict[str, list[StatisticJob]]:
    """Per corpus, the statistics that these cells need and the store has not.

    Those of the model's other cells count, too, where they were damaged and therefore set aside.
    """
    store = session.store
    needed = {job.key for cell in cells for jobs in cell.statistics.values() for job in jobs}
    jobs_by_key = {
        job.key: job for cell in session.cells for jobs in cell.statistics.values() for job in jobs
    }
    missing: dict[str, list[StatisticJob]] = {}
    for key, job in jobs_by_key.items():
        if not store.has_statistic(key) and (key in needed or store.was_set_aside(key)):
            missing.setdefault(job.corpus, []).append(job)
    return missing


def profile(session: ModelSession, missing: Mapping[str, Sequence[StatisticJob]]) -> dict[Key, str]:
    """Collect and store what is missing; returns why for each statistic that could not be."""
    problems: dict[Key, str] = {}
    store = session.store

    def name(piece: tuple[str, Sequence[StatisticJob]]) -> str:
        return f"statistics of {canonical(session.model.identity.parts())} on {piece[0]}"

    def done(piece: tuple[str, Sequence[StatisticJob]]) -> bool:
        return all(store.has_statistic(job.key) for job in piece[1])

    def do(piece: tuple[str, Sequence[StatisticJob]]) -> None:
        corpus, asked = piece
        jobs = [job for job in asked if not store.has_statistic(job.key)]
        try:
            with session.timed("profile"):
                failures = _profile_corpus(session, corpus, jobs)
        except StoreError:
            raise
        except Exception as error:
            problem = f"no profile on {corpus}: {caught(error)}"
            problems.update((job.key, problem) for job in jobs)
            session.progress.warning(f"{session.model.name}: {problem}")
            return
        for job in jobs:
            failure = failures.get(job.statistic.identity)
            if failure is not None:
                problems[job.key] = f"on {corpus}: {caught(failure)}"
                session.progress.warning(f"{session.model.name} {problems[job.key]}")

    session.sharing.each(list(missing.items()), name, done, do)
    return problems


def _profile_corpus(
    session: ModelSession, corpus: str, jobs: Sequence[StatisticJob]
) -> Mapping[str, MbenchError]:
    """One pass for all statistics; returns, by identity, why some of them failed.

    Where the model was changed on the way, nothing is stored. It is loaded again, and every
    statistic has a pass of its own, so that only the one to blame goes without.
    """
    from mbench.moe.unchanged import ModelChanged

    try:
        return _pass(session, corpus, jobs)
    except ModelChanged as error:
        session.unload()
        if len(jobs) == 1:
            statistic = jobs[0].statistic
            problem = f"statistic {statistic.name!r} changed the model's weights, or hooked into it"
            return {statistic.identity: PluginError(f"{problem}: it only may look at its batch")}
        session.progress.warning(f"{corpus}: {error}; every statistic is collected by itself")
    failures: dict[str, MbenchError] = {}
    for job in jobs:
        failures |= _profile_corpus(session, corpus, [job])
    return failures


def _pass(
    session: ModelSession, corpus: str, jobs: Sequence[StatisticJob]
) -> Mapping[str, MbenchError]:
    from mbench.moe.unchanged import unchanged

    loaded = session.load()
    statistics = [job.statistic for job in jobs]
    session.progress.stage(f"profile {session.model.name} on {corpus}")
    start = time.perf_counter()
    with contextlib.ExitStack() as ending:
        with unchanged(loaded.model):
            collected = _collected(session, loaded, corpus, statistics)
            ending.callback(collected.close)
        tokens = collected.tokens
        if tokens:
            session.speeds.profiled(time.perf_counter() - start, tokens)
        for job in jobs:
            identity = job.statistic.identity
            if identity in collected.failures:
                continue
            sums = collected.sums.get(identity, {})
            counted = corpus_profile(job.statistic, sums, tokens)
            samples: Mapping[str, Sequence[np.ndarray]] = collected.samples.get(identity, {})
            session.store.write_statistic(job.key, counted, sums, samples)
    session.progress.event("profile", model=session.model.name, corpus=corpus, tokens=tokens)
    return collected.failures


def _collected(
    session: ModelSession, loaded: LoadedModel, corpus: str, statistics: Sequence[Statistic]
) -> Collected:
    """What a pass over a corpus collects; over weights alone, no text is read."""
    from mbench.moe.profile import inspect_weights, profile_corpus

    if corpus == WEIGHTS_ONLY:
        return inspect_weights(loaded.layers, statistics)
    text = session.plan.corpora[corpus]

    def collect(batch_tokens: int) -> Collected:
        return profile_corpus(
            loaded,
            text,
            statistics,
            batch_tokens=batch_tokens,
            shards=SHARDS,
            advance=session.advance,
            new_sample=session.store.new_sample,
        )

    return session.within_memory(f"profile on {corpus}", collect, text.length)


def corpus_profile(
    statistic: Statistic, sums: Mapping[str, np.ndarray], tokens: int
) -> CorpusProfile:
    """What readers of a report should know of a pass, as far as one statistic counted it.

    Experts that no token selected have no mean score; the gates' mass bounds how much a sliced
    router can inflate the gates of a model that does not renormalise them.

    Args:
        statistic: what was collected; only `RoutingSums` tells of the model's own routing.
        sums: the statistic's, [shards, layers, ...] by array name.
        tokens: of the corpus, padding excluded.
    """
    # A subclass may give anything.
    if type(statistic) is not RoutingSums:
        return CorpusProfile(tokens)
    mass = sums["gate"].sum(axis=(0, 2)) / tokens
    return CorpusProfile(
        tokens=tokens,
        never_selected=int((sums["count"].sum(axis=0) == 0).sum()),
        gate_mass=tuple(round(float(value), 4) for value in mass),
    )


def restore_profiles(session: ModelSession) -> None:
    """Put what was counted with the stored statistics into the outcome, for the report."""
    profiles = session.outcome.profiles
    for cell in session.cells:
        for corpus, jobs in cell.statistics.items():
            place = session.model.name, corpus
            for job in jobs:
                if job.corpus == WEIGHTS_ONLY:
                    continue
                counted = session.store.read_profile(job.key)
                # Not every statistic counts the routing.
                if counted and (place not in profiles or counted.never_selected is not None):
                    profiles[place] = counted
