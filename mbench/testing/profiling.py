"""Profiles of synthetic models as a method is given them, and what statistics do on the way."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from mbench.core.errors import MbenchError, PluginError
from mbench.core.interfaces import Component, Profile, Statistic
from mbench.core.parameters import plain_parameters
from mbench.moe.unchanged import ModelChanged
from mbench.run.mask_checks import frozen
from mbench.testing.cases import Case
from mbench.testing.failures import Broken, Refused
from mbench.testing.shared_state import put_all_back, whole_state
from mbench.testing.synthetic import SyntheticModel


@dataclass(frozen=True)
class WatchedProfile(Profile):
    """A profile that notes whether shards were looked at, and says what is missing in `needs`."""

    asked: list[str] = field(default_factory=list)

    def sums(self, statistic: Statistic) -> dict[str, np.ndarray]:
        """As `Profile.sums`."""
        return {name: array.sum(axis=0) for name, array in self._arrays(statistic).items()}

    def shards(self, statistic: Statistic) -> Mapping[str, np.ndarray]:
        """As `Profile.shards`."""
        self.asked.append(statistic.name)
        return self._arrays(statistic)

    def _arrays(self, statistic: Statistic) -> Mapping[str, np.ndarray]:
        if statistic.identity not in self.shard_sums:
            problem = "was read without being collected: add it, with the same parameters, to"
            raise Broken("needs", f"statistic {statistic.name!r} {problem} `needs`")
        return self.shard_sums[statistic.identity]


def profile_of(
    model: SyntheticModel,
    statistics: tuple[Statistic, ...],
    corpus: str,
    case: Case,
    *,
    again: bool = False,
) -> Profile:
    """Collect statistics; raises `Broken` for one that breaks its contract."""
    before, states = whole_state(), [held(each) for each in statistics]
    try:
        profile = model.profile(
            statistics,
            corpus,
            batch_size=case.batch_size,
            shards=case.shards,
            router=case.router,
            again=again,
        )
    except ModelChanged as error:
        problem = "a statistic changed the model's weights, or hooked into it: it only may look"
        raise Broken("pure", problem) from error
    except PluginError as error:
        shared = "all methods share" in str(error)
        kind = "pure" if "only may read" in str(error) else "statistics"
        raise Broken("global-state" if shared else kind, str(error)) from error
    except MbenchError as error:
        raise Refused(str(error)) from error
    finally:
        problem = put_all_back(before)
    if problem:
        raise Broken("global-state", f"a statistic {problem}")
    for each, state in zip(statistics, states, strict=True):
        refuse_kept(f"statistic {each.name!r}", each, state)
    if case.renamed:
        profile = replace(profile, model="another", revision=f"of another {profile.revision}")
    return profile if case.repeated == 1 else _repeated(profile, case)


def _repeated(profile: Profile, case: Case) -> Profile:
    """As if the corpus were longer; what is read from weights, and samples, stay."""
    sums = {
        identity: {
            name: frozen(array * case.repeated) if len(array) == case.shards else array
            for name, array in arrays.items()
        }
        for identity, arrays in profile.shard_sums.items()
    }
    return replace(profile, shard_sums=sums, tokens=profile.tokens * case.repeated)


def watched(profile: Profile, rng: np.random.Generator) -> WatchedProfile:
    """The profile with an own generator, watched."""
    values = {each.name: getattr(profile, each.name) for each in fields(Profile)}
    return WatchedProfile(**{**values, "rng": rng})


def array_names(profile: Profile) -> dict[str, dict[str, int]]:
    """Which arrays a profile holds, for comparison."""
    sums = profile.shard_sums.items()
    return {key: {name: id(array) for name, array in arrays.items()} for key, arrays in sums}


def held(part: Component) -> dict[str, tuple[Any, Any]]:
    """Attributes of a component and of its classes by name, and what is in those of classes."""
    found: dict[str, tuple[Any, Any]]
    found = {name: (value, None) for name, value in vars(part).items()}
    with contextlib.suppress(ValueError, AttributeError):
        found["params"] = part.params, plain_parameters(part.params)
    for kind in type(part).__mro__:
        for name, value in vars(kind).items():
            if not name.startswith(("__", "_abc_")):
                found[f"{kind.__name__}.{name}"] = value, _content(value)
    return found


def _content(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [(key, id(each)) for key, each in value.items()]
    return list(map(id, value)) if isinstance(value, list | set) else None


def refuse_kept(who: str, part: Component, state: Mapping[str, tuple[Any, Any]]) -> None:
    """Raise `Broken` where a component, or its class, is not as `held` said before."""
    now = held(part)
    kept = [name for name, (value, _) in now.items() if value is not state.get(name, (part,))[0]]
    if kept:
        problem = f"{who} keeps {', '.join(sorted(kept))} on the component"
        raise Broken("pure", f"{problem}, which serves other cells too")
    for name, (_, content) in now.items():
        if content != state[name][1]:
            raise Broken("pure", f"{who} changes its {name}, which other cells read, too")
