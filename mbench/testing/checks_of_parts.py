"""Checks of components and statistics: before a method decides anything."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from mbench.core.errors import PluginError
from mbench.core.interfaces import Component, Profile, Statistic
from mbench.plan.components import class_code, component_key
from mbench.storage.source_code import Source
from mbench.testing.cases import SIZES, Case, ladder
from mbench.testing.failures import Broken, Found, Refused, Skipped
from mbench.testing.making import Made, check_feasible, make
from mbench.testing.profiling import WatchedProfile, profile_of, watched
from mbench.testing.subject import Subject, statistics_of
from mbench.testing.trying import close, some, through, tied, two_rows


def parameters(subject: Subject) -> None:
    """Components can be made, are told apart by their parameters, and can be sent elsewhere."""
    parts, again = subject.parts(), subject.parts()
    for role, part in parts.items():
        who = f"{role} {part.name!r}"
        _told_apart(who, part, again[role])
        for statistic in statistics_of({role: part}):
            _told_apart(f"{who}: statistic {statistic.name!r}", statistic, statistic)
    if getattr(parts["builder"], "takes_candidate", False) != (subject.candidate is not None):
        takes = "no candidate" if subject.candidate else "a candidate"
        given = subject.method.candidate
        raise Found("parameters", f"its builder takes {takes}, and the method names {given}")
    if subject.candidate and subject.candidate.stochastic():
        name = subject.method.candidate
        raise Found("parameters", f"its candidate {name!r} draws at random; suites refuse that")


def _told_apart(who: str, part: Component, other: Component) -> None:
    try:
        class_code(type(part))
        component_key(part, Source("", {}))
    except PluginError as error:
        raise Found("parameters", f"{who}: {error}") from error
    if part.identity != other.identity:
        raise Found("parameters", f"{who}: made twice, it has two identities")
    try:
        back = pickle.loads(pickle.dumps(part))
    except Exception as error:
        raise Found("parameters", f"{who} cannot be pickled: {error}") from error
    if back.identity != part.identity:
        raise Found("parameters", f"{who}: pickled and read again, it has another identity")


def needs(subject: Subject) -> None:
    """`needs` is a tuple of statistics, always the same one, and holds all that is read."""
    first, second = (statistics_of(subject.parts()) for _ in range(2))
    if [each.identity for each in first] != [each.identity for each in second]:
        raise Found("needs", "asked twice, its components need different statistics")
    through(some(2, ladder()), lambda case: make(subject, case))


def feasible(subject: Subject) -> None:
    """`check` says Infeasible before any pass or the budget can be met, and `notes` are texts."""
    parts = subject.parts()

    def answer(case: Case) -> str:
        """What the components say; empty where they accept."""
        try:
            for role, part in parts.items():
                check_feasible(role, part, case)
        except Refused as refusal:
            return str(refusal) or "(no reason)"
        return ""

    def tried(case: Case) -> None:
        said = answer(case)
        if said != answer(case):
            raise Broken("feasible", f"asked twice whether it can, it says {said!r} once only")
        if said == "(no reason)" or "\n" in said:
            raise Broken("feasible", f"why it cannot must be one line, got {said!r}")
        try:
            make(subject, case)
        except Broken as broken:
            # What else is wrong is for other checks to find.
            if broken.check == "feasible":
                raise

    every = [Case(size, kept) for size in SIZES for kept in range(1, size.experts + 1)]
    through(some(8, every), tried)


def _needed_by(subject: Subject) -> dict[str, Component]:
    parts = subject.parts()
    if not statistics_of(parts):
        raise Skipped("it needs no statistic")
    return parts


def statistics(subject: Subject) -> None:
    """Each statistic keeps its contract on each model, also in bfloat16, and two passes agree."""
    needed = statistics_of(_needed_by(subject))

    def tried(case: Case) -> None:
        first = profile_of(case.model, needed, "one", case)
        again = profile_of(case.model, needed, "one", case, again=True)
        for name, array, other in _arrays(needed, first, again):
            if not np.array_equal(array, other):
                raise Broken("statistics", f"{name}: two passes give different values")

    cases = [Case(size, 2) for size in SIZES]
    last = cases[-1]
    through((*cases, replace(last, kind="unused"), replace(last, half=True)), tried)


def _arrays(
    needed: Iterable[Statistic], first: Profile, second: Profile
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What the array is, and its values in two profiles, for all that they hold."""
    for each in needed:
        what = f"statistic {each.name!r}: "
        if each.combine == "sum":
            other: dict[str, np.ndarray] = second.sums(each)
            for name, array in first.sums(each).items():
                yield f"{what}{name!r}", array, other[name]
            continue
        for layer in range(len(first.layers)):
            samples = second.samples(each, layer)
            for name, array in first.samples(each, layer).items():
                yield f"{what}{name!r}", array, samples[name]


def batches(subject: Subject) -> None:
    """How many sequences a forward call has changes nothing but rounding."""
    parts = _needed_by(subject)
    added = [each for each in statistics_of(parts) if each.combine == "sum"]

    def tried(case: Case) -> None:
        first, made = profile_of(case.model, tuple(added), "one", case), make(subject, case)
        for size in (1, 8):
            changed = replace(case, batch_size=size)
            which = f"how many sequences a forward call has ({case.batch_size} or {size})"
            other = profile_of(case.model, tuple(added), "one", changed)
            for name, array, again in _arrays(added, first, other):
                if not close(array, again):
                    raise Broken("batches", f"{name} depends on {which}")
            _refuse_change(made, make(subject, changed), which)

    through((Case(size, 2, shards=1) for size in SIZES), tried)


def _refuse_change(first: Made, second: Made, which: str) -> None:
    for corpus, values in first.scores.items():
        if not close(values, second.scores[corpus]):
            raise Broken("batches", f"scores depend on {which}")
    if not np.array_equal(first.mask.keep, second.mask.keep) and not tied(first, second):
        rows = two_rows(first.mask.keep, second.mask.keep)
        raise Broken("batches", f"the mask depends on {which}: {rows}")


def shards(subject: Subject) -> None:
    """How many shards the sums have changes nothing; who reads shards one by one uses them all."""
    parts = _needed_by(subject)
    if "scorer" not in parts:
        raise Skipped("it has no scorer")

    def tried(case: Case) -> None:
        made = make(subject, case)
        if made.asked_for_shards:
            _each_counts(subject, case)
            return
        for number in (1, 7):
            other = make(subject, replace(case, shards=number))
            for corpus, values in made.scores.items():
                if not close(values, other.scores[corpus]):
                    problem = f"scores depend on the number of shards ({case.shards} or {number})"
                    raise Broken("shards", problem)

    through((Case(size, 2) for size in SIZES), tried)


def _each_counts(subject: Subject, case: Case) -> None:
    """Raise `Broken` where one shard's sums may be anything without a change of the scores."""
    parts = subject.parts()
    needed = statistics_of(parts)
    profile = profile_of(case.model, needed, "one", case)

    def scored(sums: Mapping[str, Mapping[str, np.ndarray]]) -> np.ndarray:
        changed: WatchedProfile = watched(
            replace(profile, shard_sums=sums), np.random.default_rng(0)
        )
        values: np.ndarray = parts["scorer"].score(changed)  # type: ignore[attr-defined]
        return np.asarray(values)

    first = scored(profile.shard_sums)
    for shard in range(case.shards):
        sums = {
            identity: {name: _other_shard(array, shard) for name, array in found.items()}
            for identity, found in profile.shard_sums.items()
        }
        if np.array_equal(scored(sums), first):
            problem = f"it reads shards one by one, and shard {shard} changes no score"
            raise Broken("shards", problem)


def _other_shard(array: np.ndarray, shard: int) -> np.ndarray:
    """The sums with those of one shard given to other experts, three times over."""
    if len(array) == 1:  # read from weights
        return array
    changed = array.copy()
    changed[shard] = 3 * np.roll(array[shard], 1, axis=1)
    return changed
