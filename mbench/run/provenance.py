"""What a reader needs to know where figures came from, and to get them again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mbench.core.early import EarlyGoal
from mbench.core.provenance import (
    CorpusSettings,
    MethodSettings,
    MixSettings,
    ModelRecord,
    ModelSource,
    Provenance,
    TaskSettings,
)
from mbench.core.run_record import (
    IN_ALL,
    Checkout,
    CorpusProfile,
    Hardware,
    PluginComponent,
    RunCost,
    RunRecord,
)
from mbench.moe.corpus import CorpusPart
from mbench.plan.models import PlannedModel
from mbench.plan.plan import Plan
from mbench.plan.tasks import PlannedTask
from mbench.run.session import Outcome
from mbench.storage.records import to_plain

PACKAGES = ("mbench", "torch", "transformers", "lm-eval", "datasets", "numpy", "tokenizers")


def gather(
    plan: Plan,
    outcome: Outcome,
    suite_path: Path | None,
    command: Sequence[str],
    changes: Sequence[str],
    given: str = "",
    goal: EarlyGoal | None = None,
) -> Provenance:
    """The plan's settings with the hashes of all inputs, and the record of this run.

    `changes` are the words of the command that narrow or redirect the suite. `given` is the suite
    where it has no file, as a text. `goal` is what the run was to end at before all items.
    """
    suite = plan.suite
    methods: dict[str, dict[str, MethodSettings]] = {model.name: {} for model in plan.models}
    for cell in plan.cells:
        if not cell.method.problem:
            methods[cell.model][cell.method.name] = cell.method.settings
    return Provenance(
        router=suite.router,
        corpora={name: _corpus(plan.corpora[name].parts[0]) for name in plan.texts},
        mixes={
            name: MixSettings({part.name: _corpus(part) for part in corpus.parts})
            for name, corpus in plan.corpora.items()
            if name not in plan.texts
        },
        tasks={task.name: _task(task) for task in plan.tasks},
        models={model.name: _model(plan, outcome, model) for model in plan.models},
        methods=methods,
        runs=(
            RunRecord(
                suite=suite.name,
                title=suite.title or suite.name,
                description=suite.description,
                command=tuple(command),
                changes=tuple(changes),
                suite_sha256=hashlib.sha256(
                    suite_path.read_bytes() if suite_path else given.encode()
                ).hexdigest(),
                versions=_versions(),
                code=plan.code.hashes,
                suite_checkout=_checkout(suite_path.resolve()) if suite_path else Checkout(None),
                mbench_checkout=_checkout(Path(__file__)),
                hardware=_hardware(),
                plugins=_plugins(plan),
                profiles=_profiles(outcome),
                cost=_cost(outcome),
                goal=goal,
            ),
        ),
    )


def _corpus(part: CorpusPart) -> CorpusSettings:
    spec = part.spec
    return CorpusSettings(
        text=to_plain(part.text.identity()),
        sequences=spec.sequences,
        length=spec.length,
        packing=spec.packing,
        join=spec.join,
        seed=spec.seed,
        bos=spec.bos,
        chat=None if spec.chat is None else spec.chat.model_dump(mode="json"),
    )


def _task(task: PlannedTask) -> TaskSettings:
    in_other_fields = ("text", "lm_eval")
    fingerprint = to_plain(task.fingerprint)
    return TaskSettings(
        text=fingerprint.get("text"),
        lm_eval=None if task.text is not None else importlib.metadata.version("lm-eval"),
        settings={key: value for key, value in fingerprint.items() if key not in in_other_fields},
    )


def _model(plan: Plan, outcome: Outcome, model: PlannedModel) -> ModelRecord:
    spec = plan.suite.models[model.name]
    if spec.hub is not None:
        source = ModelSource("hub", spec.hub)
    elif spec.path is not None:
        source = ModelSource("path", spec.path)
    else:
        source = ModelSource("plugin", str(spec.plugin))
    return ModelRecord(
        content=model.key,
        source=source,
        revision=model.revision,
        trust_remote_code=model.trust_remote_code,
        dtype=model.computed_in,
        facts=model.facts,
        attention=model.facts.attention(model.attention),
        size=outcome.sizes.get(model.name),
        same_as=spec.same_as,
    )


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _checkout(file: Path) -> Checkout:
    """Of the checkout that tracks `file`.

    What is installed may lie in the checkout of another project, which says nothing about it.
    """

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", file.name)
        return Checkout(git("rev-parse", "HEAD"), changed=bool(git("status", "--porcelain")))
    except (OSError, subprocess.SubprocessError):
        return Checkout(None)


def _hardware() -> Hardware:
    gpus: tuple[str, ...] = ()
    # Only a run that used the GPU has torch loaded; a report alone need not pay for it.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        gpus = tuple(torch.cuda.get_device_name(device) for device in devices)
    usable = getattr(os, "sched_getaffinity", None)
    return Hardware(
        machine=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        processors=os.cpu_count() if usable is None else len(usable(0)),
        gpus=gpus,
    )


def _plugins(plan: Plan) -> tuple[PluginComponent, ...]:
    used: dict[tuple[str, str], PluginComponent] = {}
    for cell in plan.cells:
        for kind, key in cell.components.items():
            used[kind, key.name] = PluginComponent(
                kind=kind,
                name=key.name,
                origin=cell.method.origins[kind].distribution,
                source_sha256=key.source,
                distributions=key.distributions,
            )
    return tuple(used.values())


def _profiles(outcome: Outcome) -> dict[str, dict[str, CorpusProfile]]:
    profiles: dict[str, dict[str, CorpusProfile]] = {}
    for (model, corpus), profile in outcome.profiles.items():
        profiles.setdefault(model, {})[corpus] = profile
    return profiles


def _cost(outcome: Outcome) -> RunCost:
    scoring: dict[str, dict[str, str]] = {}
    for (model, task), how in outcome.scoring.items():
        scoring.setdefault(model, {})[task] = how
    limits: dict[str, dict[str, int]] = {}
    rows: dict[str, dict[str, int]] = {}
    for (model, what), limit in outcome.batch_limits.items():
        limits.setdefault(model, {})[what] = limit.tokens
        if limit.rows is not None:
            rows.setdefault(model, {})[what] = limit.rows
    return RunCost(
        forward_tokens=outcome.forward_tokens,
        seconds={
            **{name: round(spent, 1) for name, spent in outcome.seconds.items()},
            IN_ALL: round(time.monotonic() - outcome.begun, 1),
        },
        peak_memory=_peak_memory(),
        scoring=scoring,
        interrupted=outcome.interrupted,
        forecasts=tuple(outcome.forecasts),
        batch_tokens=limits,
        answers_at_once=rows,
    )


def _peak_memory() -> Mapping[str, int]:
    """Bytes at most held at once by this process, and on each GPU by tensors."""
    peaks = {}
    try:
        import resource
    except ImportError:  # not a Unix
        pass
    else:
        unit = 1 if sys.platform == "darwin" else 1024
        peaks["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        for device in range(torch.cuda.device_count()):
            peaks[f"GPU {device}"] = torch.cuda.max_memory_allocated(device)
    return peaks
