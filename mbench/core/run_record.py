"""What a run was: its command, code and machine, what it counted, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mbench.core.early import EarlyGoal


@dataclass(frozen=True)
class Checkout:
    """State of the git checkout that tracks a file."""

    commit: str | None
    """None for a file that git does not track."""
    changed: bool = False
    """Whether anything in it is not committed."""

    @property
    def label(self) -> str:
        """The commit, with a mark if the checkout has changes."""
        if self.commit is None:
            return "not tracked by git"
        return self.commit + (" with uncommitted changes" if self.changed else "")


@dataclass(frozen=True)
class Hardware:
    """The machine of a run."""

    machine: str
    """Kind of processor, e.g. `x86_64`."""
    system: str
    processors: int | None
    """How many the run could use; None where the system does not say."""
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class PluginComponent:
    """A component that a method of the run uses, and the code it comes from."""

    kind: str
    """`scorer`, `selector` or `builder`."""
    name: str
    origin: str
    """Name and version of the installed package, or the path of a single file."""
    source_sha256: str
    distributions: Mapping[str, str]
    """Version of each installed package that its code imports."""


@dataclass(frozen=True)
class CorpusProfile:
    """What the pass of one model over one calibration corpus counted."""

    tokens: int
    """Padding excluded."""
    never_selected: int | None = None
    """Experts of all layers that no token was routed to; None where that was not counted."""
    gate_mass: tuple[float, ...] = ()
    """By layer, the mean over tokens of the sum of the top-k gates; empty where not counted."""


@dataclass(frozen=True)
class Forecast:
    """What a run said that a model's share of it would take, beside what it took."""

    model: str
    after: float
    """Seconds from the start of the run to the forecast."""
    seconds: float
    """Wall-clock seconds that profiles, masks and evaluations were to take from then."""
    evaluations: int
    """Mask x task pairs among them; at most, before masks are made: methods may agree."""
    took: float | None
    """What they took; None where the run ended before they did."""


IN_ALL = "in all"
"""The stage that all others are part of: from the beginning of a run to its report."""


@dataclass(frozen=True)
class RunCost:
    """What one run computed; whatever it found in the store cost nothing."""

    forward_tokens: int
    seconds: Mapping[str, float]
    """Wall-clock, by stage, and `IN_ALL`."""
    peak_memory: Mapping[str, int]
    """Bytes held at once, by `process` and by GPU."""
    scoring: Mapping[str, Mapping[str, str]]
    """Model -> task -> how its log-likelihoods were computed (see `Evaluator.scoring`)."""
    interrupted: bool
    forecasts: tuple[Forecast, ...] = ()
    """By model, once its speeds were measured."""
    batch_tokens: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Model -> task, or what else passed -> tokens in one forward call, at most, at the end."""
    answers_at_once: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Model -> task -> answers side by side, where memory ran out over more."""


@dataclass(frozen=True)
class RunRecord:
    """One run of one suite."""

    suite: str
    title: str
    description: str
    command: tuple[str, ...]
    """Words of the command line."""
    changes: tuple[str, ...]
    """Those words of it that narrow or redirect the suite."""
    suite_sha256: str
    """Of the suite file."""
    versions: Mapping[str, str]
    """Of python and of installed packages, with the build's variant, such as `+cpu`."""
    code: Mapping[str, str]
    """Folder of mbench -> hash of the code in it, for the folders that computed figures."""
    suite_checkout: Checkout
    mbench_checkout: Checkout
    hardware: Hardware
    plugins: tuple[PluginComponent, ...]
    profiles: Mapping[str, Mapping[str, CorpusProfile]]
    """Model -> corpus -> what profiling counted."""
    cost: RunCost
    goal: EarlyGoal | None = None
    """When a mask had enough items, as far as the run was to end before all of them."""
