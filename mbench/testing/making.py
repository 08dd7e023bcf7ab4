"""Makes a method's scores and mask in a case, and watches what its components do on the way."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mbench.core.errors import Infeasible, MbenchError, PluginError, SearchLimit
from mbench.core.interfaces import (
    WEIGHTS_ONLY,
    Component,
    ExpertMask,
    MaskBuilder,
    Scores,
    Selection,
)
from mbench.core.plugin_code import describe
from mbench.core.search import MaskSearch
from mbench.run.mask_checks import frozen
from mbench.testing.cases import CORPORA, Case
from mbench.testing.failures import Broken, Refused
from mbench.testing.profiling import (
    WatchedProfile,
    array_names,
    held,
    profile_of,
    refuse_kept,
    watched,
)
from mbench.testing.results import mask_of, scores_of, selection_of
from mbench.testing.shared_state import put_all_back, whole_state
from mbench.testing.subject import Subject, statistics_of
from mbench.testing.synthetic import SyntheticModel
from mbench.testing.synthetic_probe import SyntheticProbe

MASKS = 24
"""A search may try."""


@dataclass(frozen=True)
class Made:
    """What a method made of a case."""

    scores: Mapping[str, np.ndarray]
    """By corpus, float64 [layers, N]; zeros without a scorer."""
    selection: Selection
    mask: ExpertMask
    probe: SyntheticProbe | None
    """That its search asked; None if it does not search."""
    rated: bool
    """Whether the scores are a scorer's."""
    asked_for_shards: bool
    """Whether a component looked at shards one by one."""

    def kept_scores(self, layer: int) -> list[tuple[float, ...]]:
        """Scores of the experts that a layer keeps, sorted: equal for masks that differ by ties."""
        rows = [scores[layer, self.mask.keep[layer]] for scores in self.scores.values()]
        return sorted(zip(*rows, strict=True))


def make(
    subject: Subject,
    case: Case,
    *,
    parts: dict[str, Component] | None = None,
    model: SyntheticModel | None = None,
    seed: int = 0,
    given: Sequence[np.ndarray] | None = None,
    masks: int = MASKS,
) -> Made:
    """Make a method's mask.

    Args:
        subject: the method.
        case: what on.
        parts: its components; None: new ones.
        model: instead of the case's own, e.g. one with other numbers.
        seed: of what it draws.
        given: float64 [layers, N] for each corpus, instead of what its scorer gives on it.
        masks: that a search may try.

    Raises `Broken` where it breaks its contract, and `Refused` where it says that it cannot.
    """
    key = case, seed, masks
    known = subject.made if parts is None and model is None and given is None else {}
    if key not in known:
        try:
            known[key] = _made(
                subject,
                case,
                subject.parts() if parts is None else parts,
                case.model if model is None else model,
                seed,
                given,
                masks,
            )
        except (Broken, Refused) as error:
            known[key] = error
    if isinstance(known[key], Exception):
        raise known[key]
    made: Made = known[key]
    return made


def _made(
    subject: Subject,
    case: Case,
    parts: dict[str, Component],
    model: SyntheticModel,
    seed: int,
    given: Sequence[np.ndarray] | None,
    masks: int,
) -> Made:
    candidate = _candidate(subject, case, model)
    for role, part in parts.items():
        check_feasible(role, part, case)
    profiles = _profiles(subject, parts, case, model, seed)
    names = [array_names(profile) for profile in profiles.values()]
    given_scores = {
        corpus: _scores(parts.get("scorer"), profile, case, [seed, number], given)
        for number, (corpus, profile) in enumerate(profiles.items())
    }
    scores = dict(given_scores)
    rng = np.random.default_rng(seed)
    selector, builder = parts["selector"], parts["builder"]
    assert isinstance(builder, MaskBuilder)
    returned = _call("selector", selector, "select", scores, replace(case.budget), rng)
    _refuse_drawing(selector.name, _draws(selector), rng, seed)
    selection = selection_of(returned, selector.name, case)
    arguments: tuple[Any, ...] = (selection, scores, replace(case.budget), candidate)
    probe = None
    if isinstance(builder, MaskSearch):
        needed = statistics_of({"builder": builder})
        probe = SyntheticProbe(
            model, list(profiles), masks=masks, statistics=needed, router=case.router
        )
        returned = _searched(builder, arguments, probe, seed, masks)
    else:
        returned = _call("builder", builder, "build", *arguments)
    for number, profile in enumerate(profiles.values()):
        if not getattr(parts.get("scorer"), "stochastic", False):
            _refuse_drawing("profile.rng", False, profile.rng, [seed, number])
    if scores != given_scores:
        raise Broken("pure", "the mapping of scores is not what it was: work on a copy")
    if names != [array_names(profile) for profile in profiles.values()]:
        raise Broken("pure", "a profile's arrays are not what they were: work on copies")
    mask = mask_of(returned, builder, case)
    asked = any(profile.asked for profile in profiles.values())
    values_by_corpus = {name: score.values for name, score in given_scores.items()}
    return Made(values_by_corpus, selection, mask, probe, "scorer" in parts, asked)


def _scores(
    scorer: Component | None,
    profile: WatchedProfile,
    case: Case,
    seed: list[int],
    given: Sequence[np.ndarray] | None,
) -> Scores:
    """A scorer's on one corpus, those given instead, or zeros; `seed` ends with its number."""
    values = np.zeros((case.size.layers, case.size.experts))
    if given is not None:
        values = given[seed[-1]]
    elif scorer is not None:
        returned = _call("scorer", scorer, "score", profile)
        values = scores_of(returned, scorer.name, case, profile.corpus)
        _refuse_drawing(scorer.name, _draws(scorer), profile.rng, seed)
    return Scores(frozen(values), profile)


def _searched(
    builder: MaskSearch, arguments: tuple[Any, ...], probe: SyntheticProbe, seed: int, masks: int
) -> Any:
    """What a search returns that may try so many masks."""
    rng = np.random.default_rng(seed)
    try:
        returned = _call("builder", builder, "search", *arguments, probe, rng)
    except Broken as broken:
        # With too little to do anything at all, a search may say so.
        if broken.check == "search" and not probe.spent and masks < MASKS:
            raise Refused(broken.problem) from broken
        raise
    _refuse_drawing(builder.name, _draws(builder), rng, seed)
    return returned


def _candidate(subject: Subject, case: Case, model: SyntheticModel) -> ExpertMask | None:
    other = subject.candidate
    if other is None:
        return None
    try:
        return make(other, case, model=None if model is case.model else model).mask
    except Broken as error:
        raise Refused(f"its candidate {other.method.name!r} is broken: {error}") from error


def check_feasible(role: str, part: Component, case: Case) -> None:
    """Ask a component whether it can; raises `Refused` if not, `Broken` for a wrong answer."""
    try:
        _call(role, part, "check", replace(case.budget))
        notes = _call(role, part, "notes", replace(case.budget))
    except Infeasible as error:
        raise Refused(str(error)) from error
    except Broken as error:
        raise Broken("feasible" if error.check == "result" else error.check, str(error)) from error
    if not isinstance(notes, tuple) or not all(isinstance(note, str) for note in notes):
        raise Broken("feasible", f"{role} {part.name!r}: notes must be texts, got {notes!r}")


def _profiles(
    subject: Subject, parts: dict[str, Component], case: Case, model: SyntheticModel, seed: int
) -> dict[str, WatchedProfile]:
    statistics = statistics_of(parts)
    number = subject.corpora(case.corpora)
    names = (*CORPORA, *(f"further{more}" for more in range(number)))[:number]
    if not names and (statistics or "scorer" in parts):
        names = (WEIGHTS_ONLY,)
    if case.renamed and names != (WEIGHTS_ONLY,):
        names = tuple(f"{name}.{number + 7}" for number, name in enumerate(names))
    return {
        name: watched(
            profile_of(model, statistics, name, case), rng=np.random.default_rng([seed, number])
        )
        for number, name in enumerate(names)
    }


def _draws(part: Component) -> bool:
    return bool(getattr(part, "stochastic", False))


def _refuse_drawing(name: str, draws: bool, rng: np.random.Generator, seed: Any) -> None:
    untouched = np.random.default_rng(seed)
    drawn = rng.bit_generator.state != untouched.bit_generator.state
    spawned = rng.bit_generator.seed_seq.n_children_spawned  # type: ignore[attr-defined]
    if (drawn or spawned) and not draws:
        problem = f"{name!r}: a generator is drawn from without saying `stochastic = True`"
        raise Broken("seeds", problem)


def _call(role: str, part: Component, step: str, *arguments: Any) -> Any:
    """Call a component, and look for what it leaves behind; raises `Broken` or `Refused`."""
    who = f"{role} {part.name!r}, in {step},"
    before, state = whole_state(), held(part)
    problem = ""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            returned = getattr(part, step)(*arguments)
    except BaseException as error:
        problem = put_all_back(before)
        _explain(error, who, step)
    finally:
        problem = problem or put_all_back(before)
    if problem:
        raise Broken("global-state", f"{who} {problem}")
    refuse_kept(who, part, state)
    return returned


def _explain(error: BaseException, who: str, step: str) -> None:
    """Raise what an error of a component's means."""
    if isinstance(error, KeyboardInterrupt | Broken | Refused):
        raise error
    if isinstance(error, Infeasible) and step == "check":
        raise error
    if isinstance(error, Infeasible):
        problem = f"{who} raised Infeasible ({error}) where `check` had said nothing"
        raise Broken("feasible", problem) from error
    if isinstance(error, SearchLimit):
        problem = f"{who} asked for more than is left ({error}): look at probe.masks_left before"
        raise Broken("search", problem) from error
    if isinstance(error, PluginError):
        raise Broken("result", f"{who} raised PluginError: {error}") from error
    if isinstance(error, MbenchError):
        raise Refused(f"{who} {error}") from error
    text = str(error)
    written = isinstance(error, ValueError) and ("read-only" in text or "WRITEABLE" in text)
    raise Broken("pure" if written else "result", f"{who} {describe(error)}") from error
