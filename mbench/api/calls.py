"""The functions of the Python API: `mbench.plan`, `run`, `scores` and `identify`."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from mbench.api.request import Request, Wish, request
from mbench.api.views import PlannedRun, RunResults, finished_run, planned_run, scores_frame
from mbench.core.errors import MbenchError, SuiteError, shown, unknown
from mbench.run.early.words import goal_of
from mbench.run.environment import settings_as_before
from mbench.run.progress import Progress, figures_in_words
from mbench.storage.hub.offline import online_afterwards

if TYPE_CHECKING:
    import pandas as pd

    from mbench.api.identifying import Identified
    from mbench.core.early import EarlyFigure
    from mbench.core.interfaces import Component

Suite = str | Path | Mapping[str, Any]
"""A suite's file, the name of one that comes with mbench, or its keys and values."""


class Options(TypedDict, total=False):
    """What a call may change, as the options of the command line do."""

    plugins: Sequence[type[Component] | object | str | Path]
    """Classes of components, modules and objects with hooks, and paths of plugin files. A scorer's
    class is also a method of its name, on one corpus, which the suite gets unless it uses it."""
    methods: Mapping[str, Mapping[str, Any] | None]
    """Methods to add or to replace, as a suite says them: `{"mine": {"scorer": "frequency"}}`."""
    only: Sequence[str]
    """Run only these methods (`--method`)."""
    retain: Sequence[float]
    """Run only these budgets."""
    models: Sequence[str] | Mapping[str, str | Path]
    """Only these models of the suite; or name -> where to take it from (`--model`)."""
    texts: Mapping[str, str | Path]
    """Corpora and perplexity texts from local files."""
    tasks: Mapping[str, str | Path]
    """Tasks from local task files."""
    limit: int
    """At most so many items per task, and windows per text."""
    changes: Mapping[str, Any]
    """Single values of the suite by dotted key, `{"router": "preserved"}` (`--set`)."""
    store: str | Path
    """The store, a folder or a URL such as `s3://bucket/prefix`; without it `$MBENCH_STORE`, else
    the user's cache."""


def plan(suite: Suite, **options: Unpack[Options]) -> PlannedRun:
    """What a run would cost, what of it is stored, and what it can tell apart; loads no weights.

    Raises `MbenchError`, one line, for a mistake in the suite, an option or a plugin.
    """
    with _own_settings():
        return planned_run(
            _request(suite, options, _on_standard_error, only_look=True, trust_expected=True)
        )


def run(
    suite: Suite,
    *,
    output: str | Path = "reports",
    quiet: bool = False,
    precision: float | None = None,
    hours: float | None = None,
    **options: Unpack[Options],
) -> RunResults:
    """Run a suite, and write its leaderboard to the folder `output`/<name of the suite>.

    What is in the store is not computed again. What fails, such as a method that breaks its
    contract, is in the results with its reason, and all else goes on. Plugins of this process keep
    a run in one process, whatever the suite's `processes` say.

    Args:
        suite: a file, a name, or plain values.
        output: the folder of reports.
        quiet: print warnings alone; otherwise finished masks are lines on standard error.
        precision: end a mask on a task once its difference to the unpruned model is known to
            ± this, in units of the task's metric; of perplexities, in units of the mean loss.
        hours: evaluate all masks on more and more items, and begin nothing after so many hours.
        options: see `Options`.

    Raises:
        MbenchError: one line, for a mistake in the suite, an option or a plugin, or an input that
            would measure something else.
        KeyboardInterrupt: at Ctrl-C, once what was finished is reported.
    """
    from mbench.api.running import carry_out, executor_of, prepare
    from mbench.api.running import report as report_of

    tell = _nobody if quiet else _on_standard_error
    _refuse_no_path("output", output)
    goal = goal_of(precision, hours)
    with _own_settings():
        asked = _request(suite, options, tell)
        words = ["mbench.run", str(asked.path), *asked.changes]
        words += [word for name in asked.registry.given for word in ("--plugin", name)]
        for name, value in (("--precision", precision), ("--hours", hours)):
            words += [name, f"{value:g}"] if value is not None else []
        prepared, progress = prepare(asked, Path(output), words, tell, goal), _Lines(tell)
        outcome = carry_out(prepared, progress, executor_of(asked, goal))
        finished = report_of(prepared, outcome, progress)
    if finished.outcome.interrupted:
        raise KeyboardInterrupt("call it again to continue")
    return finished_run(finished)


def scores(
    suite: Suite, method: str, *, quiet: bool = False, **options: Unpack[Options]
) -> pd.DataFrame:
    """What a method's scorer gives every expert, without evaluating a mask.

    Only statistics that are not stored yet are collected. `options` are those of `Options`, of
    which `only`, `retain` and `limit` change nothing here.

    Returns:
        Columns `model`, `seed` (NA where the scorer draws nothing), `corpus`, `layer` and `expert`
        (numbers), `score` (higher is kept).

    Raises:
        MbenchError: one line, for a mistake, a method without a scorer, or a scorer that fails.
    """
    from mbench.api.scoring import request_scores, scored

    tell = _nobody if quiet else _on_standard_error
    with _own_settings():
        found = scored(request_scores(_wish(suite, options), method, tell), _Lines(tell))
    for what, why in found.problems.items():
        raise MbenchError(f"{what}: {why}")
    return scores_frame(found)


def identify(
    base: str | Path,
    pruned: str | Path,
    *,
    plugins: Sequence[str | Path] = (),
    store: str | Path | None = None,
) -> Identified:
    """What a pruned checkpoint is: which experts of the full one it holds, and what else differs.

    Args:
        base: the full model: a directory, a hub id, maybe with @REVISION, or a plugin's model.
        pruned: the other, likewise.
        plugins: paths of plugin files.
        store: the folder or URL whose masks of the full model are compared with it.

    Raises:
        MbenchError: one line, for what is no pair of such checkpoints.
    """
    from mbench.api.identifying import identified
    from mbench.storage.reading import store_to_read

    for name, given in (("base", base), ("pruned", pruned)):
        _refuse_no_path(name, given)
    if store is not None:
        _refuse_no_path("store", store)
    with _own_settings():
        return identified(base, pruned, [Path(each) for each in plugins], store_to_read(store))


@contextmanager
def _own_settings() -> Iterator[None]:
    """Libraries are silent, and stop asking the hub, while mbench uses them, and no longer."""
    with warnings.catch_warnings(), settings_as_before(), online_afterwards():
        yield


def _nobody(line: str) -> None:
    pass


def _on_standard_error(line: str) -> None:
    print(line, file=sys.stderr)


def _request(
    suite: Suite,
    options: Mapping[str, Any],
    tell: Callable[[str], object],
    **how: bool,
) -> Request:
    return request(_wish(suite, options, **how), tell)


def _wish(suite: Suite, options: Mapping[str, Any], **how: bool) -> Wish:
    for name in options:
        if name not in Options.__annotations__:
            # `output` is an option of `run` alone, which takes it by itself.
            choices = [*Options.__annotations__, *(["output"] if name != "output" else [])]
            raise MbenchError(unknown("option", name, choices))
    if not isinstance(suite, str | Path | Mapping):
        raise MbenchError(f"a suite is a file, a name or a mapping, got {shown(suite)}")
    if options.get("store") is not None:
        _refuse_no_path("store", options["store"])
    limit = options.get("limit")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
        raise MbenchError(f"limit= takes a number of items from 1, got {shown(limit)}")
    plugins = options.get("plugins", ())
    if isinstance(plugins, str | Path) or not isinstance(plugins, Sequence):
        raise MbenchError(f"plugins= takes a list, got {shown(plugins)}")
    return Wish(
        suite if isinstance(suite, Mapping) else Path(suite),
        plugin_files=tuple(Path(item) for item in plugins if isinstance(item, str | Path)),
        plugins=tuple(item for item in plugins if not isinstance(item, str | Path)),
        methods=options.get("methods") or {},
        narrowing=_narrowing(options),
        store=options.get("store") or None,
        broken_files=False,
        **how,
    )


def _refuse_no_path(name: str, given: Any) -> None:
    if not isinstance(given, str | Path):
        raise MbenchError(f"{name}= takes a path, got {shown(given)}")


def _narrowing(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options by the names and in the forms of the command line."""
    return {
        "methods": _several("only", options.get("only")),
        "retain": _several("retain", options.get("retain")),
        "models": _redirections("models", options.get("models")),
        "texts": _redirections("texts", options.get("texts")),
        "tasks": _redirections("tasks", options.get("tasks")),
        "limit": options.get("limit"),
        "set_values": _assignments(options.get("changes")),
    }


def _several(name: str, given: Any) -> tuple[Any, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence | None):
        raise MbenchError(f"{name}= takes a list, got {shown(given)}")
    return tuple(given or ())


def _redirections(name: str, given: Any) -> tuple[str, ...]:
    if isinstance(given, Mapping):
        return tuple(f"{key}={place}" for key, place in given.items())
    return tuple(map(str, _several(name, given)))


def _assignments(given: Any) -> tuple[str, ...]:
    if not isinstance(given, Mapping | None):
        raise MbenchError(f"changes= takes a mapping of keys to values, got {shown(given)}")
    try:
        return tuple(f"{key}={json.dumps(value)}" for key, value in (given or {}).items())
    except TypeError as error:
        raise SuiteError(f"changes=: {error}") from None


class _Lines(Progress):
    """A line for each mask with its figures, and for what fails."""

    def __init__(self, tell: Callable[[str], object]) -> None:
        self._tell = tell

    def warning(self, text: str) -> None:
        """A warning is told in any case."""
        _on_standard_error(f"warning: {text}")

    def event(self, kind: str, **values: Any) -> None:
        """What has no result."""
        if values.get("status") not in (None, "ok", "early"):
            what = values.get("cell") or f"{values.get('mask')}: {values.get('task')}"
            self._tell(f"{values['status']} {what}: {values['reason']}")

    def figures(
        self,
        label: str,
        metrics: Mapping[str, float],
        early: Mapping[str, EarlyFigure] | None = None,
    ) -> None:
        """A mask's figures."""
        self._tell(f"{label}  {figures_in_words(metrics, early)}")
