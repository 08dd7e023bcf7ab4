"""What decides a run's figures, setting by setting, and where runs differ in it.

Whatever enters the key of a stored figure decides it: the model's weights and dtype, the router
mode, the texts and how they are cut, the tasks' items and prompts, the methods' parts, and the
versions of mbench, torch and transformers. Everything else (hardware, code state of a checkout,
other packages, the source of plugins, what a run cost) is worth telling and no more: a method's
source decides its masks, and masks that differ are found by their content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mbench.core.errors import MbenchError
from mbench.core.results import Results
from mbench.plan.models import COMPUTED_BY

TOLD = ("versions", "hardware", "git", "plugins")
"""Parts of the provenance whose differences are told."""


@dataclass(frozen=True)
class Difference:
    """One setting that runs do not agree on."""

    thing: str
    """What the setting belongs to, e.g. `corpus wiki`."""
    setting: str
    values: Mapping[str, str]
    """Run -> its value."""

    def __str__(self) -> str:
        runs: dict[str, list[str]] = {}
        for run, value in self.values.items():
            runs.setdefault(value, []).append(run)
        values = "; ".join(f"{value} in {', '.join(names)}" for value, names in runs.items())
        return f"{' › '.join(part for part in (self.thing, self.setting) if part)}: {values}"


def deciding_differences(runs: Mapping[str, Results]) -> list[Difference]:
    """Settings that decide figures and differ, of whatever two runs both have.

    A model, corpus, task, method or average that only one run has is no difference.

    Raises:
        MbenchError: results that do not record their settings.
    """
    found = list(_differences({run: _deciding(run, results) for run, results in runs.items()}))
    told = {difference.thing for difference in found}
    # Of a task with another limit it goes without saying that the items differ.
    return found + [one for one in _item_differences(runs) if one.thing not in told]


def told_differences(records: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
    """Differences in provenance that forbid nothing, of what two runs both have."""
    told = {
        run: {
            f"{part} {name}": value if isinstance(value, Mapping) else {"": value}
            for part in TOLD
            for name, value in record.get(part, {}).items()
        }
        for run, record in records.items()
    }
    return list(_differences(told))


def _deciding(run: str, results: Results) -> dict[str, Mapping[str, Any]]:
    """Thing -> its settings."""
    provenance = results.provenance
    for part in ("settings", "models", "texts", "versions"):
        if not isinstance(provenance.get(part), Mapping):
            raise MbenchError(
                f"{run} does not record its {part}, so it cannot be compared: run its suite again"
                " (nothing in the store is computed again)"
            )
    settings, texts = provenance["settings"], provenance["texts"]
    things: dict[str, Mapping[str, Any]] = {"router": {"": settings["router"]}}
    for package in COMPUTED_BY:
        # The build's variant, such as `+cpu`, is told with the hardware.
        things[f"version of {package}"] = {"": provenance["versions"][package].partition("+")[0]}
    if results.average:
        things["average"] = {"name": results.average, "tasks": sorted(results.average_tasks)}
    for name, model in provenance["models"].items():
        things[f"model {name}"] = {key: model[key] for key in ("content", "dtype")}
    for name, corpus in settings["corpora"].items():
        things[f"corpus {name}"] = {**corpus, "text": texts[f"corpora.{name}"]}
    for name, metric in results.task_metrics.items():
        things[f"task {name}"] = {**texts[name], "metric": metric}
    for model, methods in settings["methods"].items():
        for name, parts in methods.items():
            things[f"method {name} on {model}"] = parts
    return things


def _differences(runs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Iterator[Difference]:
    """Run -> thing -> setting -> value: what differs between the runs that have a thing."""
    for thing in dict.fromkeys(name for things in runs.values() for name in things):
        own = {run: dict(_flat(things[thing])) for run, things in runs.items() if thing in things}
        for setting in dict.fromkeys(name for values in own.values() for name in values):
            values = {run: _shown(values, setting) for run, values in own.items()}
            if len(set(values.values())) > 1:
                yield Difference(thing, setting, values)


def _flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, entry in value.items():
        name = f"{path} › {key}" if path else str(key)
        if isinstance(entry, Mapping) and entry:
            yield from _flat(entry, name)
        else:
            yield name, entry


def _shown(values: Mapping[str, Any], setting: str) -> str:
    """A value on one short line, different for different values."""
    if setting not in values:
        return "not set"
    value = values[setting]
    if isinstance(value, str):
        # Only what would not show needs quotes.
        text = value if value == " ".join(value.split()) != "" else json.dumps(value)
    elif isinstance(value, list) and not any(isinstance(entry, Mapping) for entry in value):
        text = ", ".join(map(str, value)) or "none"
    else:
        text = "none" if value is None else json.dumps(value, sort_keys=True, default=str)
    if len(text) <= 160:
        return text
    return f"{text[:60]}… (sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"


def _item_differences(runs: Mapping[str, Results]) -> Iterator[Difference]:
    """Tasks whose items are not the same in all runs that have results on them.

    A run's items are those of all its cells: one cell that lacks some decides nothing.
    """
    items: dict[tuple[str, str], dict[str, frozenset[str]]] = {}
    for run, results in runs.items():
        for cell in results.cells:
            for task, found in cell.evaluations.items():
                own = items.setdefault((task, cell.model), {})
                own[run] = own.get(run, frozenset()) | frozenset(found.items["item"])
    for (task, model), own in items.items():
        if len(set(own.values())) > 1:
            yield Difference(f"task {task}", f"items on {model}", counted_items(own))


def counted_items(items: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Run -> how many items it has, with an example of those that not every run has."""
    shared = frozenset.intersection(*items.values())
    return {run: f"{len(names)}" + _example(sorted(names - shared)) for run, names in items.items()}


def _example(others: Iterable[str]) -> str:
    first = next(iter(others), None)
    return "" if first is None else f" (with {first!r})"
