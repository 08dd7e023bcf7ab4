"""The settings that decide a run's figures, and those in which runs differ.

Whatever enters the key of a stored figure decides it: the model's weights, dtype and attention, the
router mode, the texts and how they are cut, the tasks' items and prompts, the methods' parts, the
code of mbench that computes, and the versions of torch, transformers and, for its tasks, lm-eval.
Everything else (hardware, code state of a checkout, other packages, the source of plugins, what a
run cost) is reported and prevents nothing: a method's source decides its masks, and masks that
differ are detected by their content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mbench.core.interfaces import RouterMode
from mbench.core.provenance import MethodSettings, release
from mbench.core.results import Results
from mbench.core.run_record import RunRecord

COMPUTE = ("torch", "transformers")
"""Packages whose releases decide figures of any kind."""


@dataclass(frozen=True)
class SettingDifference:
    """A setting in which runs differ."""

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


def deciding_differences(runs: Mapping[str, Results]) -> list[SettingDifference]:
    """Settings that decide figures and differ, of whatever at least two runs have.

    A model, corpus, task, method or average that only one run has is no difference.
    """
    differences = list(_differences({run: _deciding(results) for run, results in runs.items()}))
    things = {difference.thing for difference in differences}
    # Where a task differs in its limit, its items differ as a consequence.
    return differences + [each for each in _item_differences(runs) if each.thing not in things]


def recorded_differences(runs: Mapping[str, RunRecord]) -> list[SettingDifference]:
    """Differences between run records that do not prevent merging."""
    return list(_differences({name: _recorded(run) for name, run in runs.items()}))


def _recorded(run: RunRecord) -> dict[str, Mapping[str, object]]:
    """Thing -> its settings."""
    hardware = run.hardware
    plain: dict[str, object] = {
        **{f"versions {package}": version for package, version in run.versions.items()},
        "hardware machine": hardware.machine,
        "hardware system": hardware.system,
        "hardware processors": hardware.processors,
        "hardware gpus": hardware.gpus,
        "git of the suite": run.suite_checkout.label,
        "git of mbench": run.mbench_checkout.label,
    }
    things: dict[str, Mapping[str, object]] = {name: {"": value} for name, value in plain.items()}
    for part in run.plugins:
        things[f"plugins {part.kind} {part.name}"] = {
            "from": part.origin,
            "source sha256": part.source_sha256,
            "distributions": part.distributions,
        }
    return things


def _deciding(results: Results) -> dict[str, Mapping[str, object]]:
    """Thing -> its settings."""
    provenance = results.provenance
    things: dict[str, Mapping[str, object]] = {"router": {"": provenance.router}}
    # Merged runs agree on the following.
    run = provenance.runs[0]
    for package in COMPUTE:
        # The build's variant, such as `+cpu`, is reported with the hardware.
        things[f"version of {package}"] = {"": release(run.versions[package])}
    things["code of mbench"] = run.code
    if results.average:
        things["average"] = {"name": results.average, "tasks": sorted(results.average_tasks)}
    for name, model in provenance.models.items():
        computed = {"dtype": model.dtype, "attention": model.attention}
        things[f"model {name}"] = {"content": model.content, **computed}
    for name, corpus in provenance.corpora.items():
        things[f"corpus {name}"] = vars(corpus)
    for name, mix in provenance.mixes.items():
        # The order of its parts decides that of its sequences.
        parts = {part: vars(corpus) for part, corpus in mix.parts.items()}
        things[f"corpus {name}"] = {"mix": mix.label, **parts}
    for name, metric in results.task_metrics.items():
        task = provenance.tasks[name]
        fields = {"text": task.text, "version of lm-eval": task.lm_eval, "metric": metric}
        things[f"task {name}"] = {**task.settings, **fields}
    for model_name, methods in provenance.methods.items():
        for name, method in methods.items():
            things[f"method {name} on {model_name}"] = _method(method, provenance.router)
    return things


def _method(method: MethodSettings, router: RouterMode) -> dict[str, object]:
    """The method's settings; its router mode only where it is not the suite's."""
    settings: dict[str, object] = {}
    for kind, part in method.parts.items():
        settings[kind] = part.name
        settings |= {f"{kind} › {name}": value for name, value in part.parameters.items()}
    if method.corpora:
        settings["corpora"] = method.corpora
    if method.candidate is not None:
        settings["candidate"] = method.candidate
    if method.router != router:
        settings["router"] = method.router
    if method.checkpoint_content is not None:
        settings["checkpoint"] = method.checkpoint_content
    return settings


def _differences(
    runs: Mapping[str, Mapping[str, Mapping[str, object]]],
) -> Iterator[SettingDifference]:
    """From run -> thing -> setting -> value, what differs between the runs that have a thing."""
    for thing in dict.fromkeys(name for things in runs.values() for name in things):
        by_run = {
            run: dict(_flat(things[thing])) for run, things in runs.items() if thing in things
        }
        for setting in dict.fromkeys(name for settings in by_run.values() for name in settings):
            values = {run: _shown(settings, setting) for run, settings in by_run.items()}
            if len(set(values.values())) > 1:
                yield SettingDifference(thing, setting, values)


def _flat(value: Mapping[str, object], path: str = "") -> Iterator[tuple[str, object]]:
    for key, entry in value.items():
        name = f"{path} › {key}" if path else str(key)
        if isinstance(entry, Mapping):
            yield from _flat(entry, name)
        else:
            yield name, entry


def _shown(settings: Mapping[str, object], setting: str) -> str:
    """A value on one short line; different values give different texts."""
    if setting not in settings:
        return "not set"
    value = settings[setting]
    if isinstance(value, str):
        # Quoted only where white space would not be visible.
        text = value if value == " ".join(value.split()) != "" else json.dumps(value)
    elif isinstance(value, (list, tuple)) and not any(
        isinstance(entry, Mapping) for entry in value
    ):
        text = ", ".join(map(str, value)) or "none"
    else:
        text = "none" if value is None else json.dumps(value, sort_keys=True, default=str)
    if len(text) <= 160:
        return text
    return f"{text[:60]}… (sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]})"


def _item_differences(runs: Mapping[str, Results]) -> Iterator[SettingDifference]:
    """Tasks whose items are not the same in all runs that have results on them.

    A run's items are those of all its cells: it does not matter if one of them lacks some.
    """
    items: dict[tuple[str, str], dict[str, frozenset[str]]] = {}
    for run, results in runs.items():
        for cell in results.cells:
            for task, evaluation in cell.evaluations.items():
                by_run = items.setdefault((task, cell.model), {})
                by_run[run] = by_run.get(run, frozenset()) | frozenset(evaluation.columns["item"])
    for (task, model), by_run in items.items():
        if len(set(by_run.values())) > 1:
            yield SettingDifference(f"task {task}", f"items on {model}", counted_items(by_run))


def counted_items(items: Mapping[str, frozenset[str]]) -> dict[str, str]:
    """Run -> how many items it has, with an example of those that not every run has."""
    shared = frozenset.intersection(*items.values())
    return {run: f"{len(names)}" + _example(sorted(names - shared)) for run, names in items.items()}


def _example(others: Iterable[str]) -> str:
    first = next(iter(others), None)
    return "" if first is None else f" (with {first!r})"
