"""What a reader needs to know where figures came from, and to get them again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mbench.plan.cells import Plan
from mbench.plan.in_words import method_parts
from mbench.run.session import Outcome

PACKAGES = ("mbench", "torch", "transformers", "lm-eval", "datasets", "numpy", "tokenizers")


def gather(
    plan: Plan, outcome: Outcome, suite_path: Path, command: Sequence[str], changes: Sequence[str]
) -> dict[str, Any]:
    """Command, versions, code state, hardware, hashes of all inputs, and what the run cost.

    `changes` are the words of the command that narrow or redirect the suite.
    """
    return {
        "command": shlex.join(command),
        "suite changed by": shlex.join(changes),
        "suite file sha256": hashlib.sha256(suite_path.read_bytes()).hexdigest(),
        "versions": {"python": platform.python_version(), **_versions()},
        "git": {
            "of the suite": _git_state(suite_path.resolve()),
            "of mbench": _git_state(Path(__file__)),
        },
        "hardware": _hardware(),
        "models": {
            model.name: {
                "content": model.key,
                "source": plan.suite.models[model.name].model_dump(
                    include={"hub", "path", "plugin"}, exclude_none=True
                ),
                "revision": model.revision or "",
                "trust_remote_code": model.trust_remote_code,
                **model.facts.to_json(),
                "dtype": model.facts.dtype if model.dtype == "auto" else model.dtype,
            }
            for model in plan.models
        },
        "texts": {
            **{f"corpora.{name}": text.identity() for name, text in plan.texts.items()},
            **{t.name: dict(t.fingerprint) for t in plan.tasks},
        },
        "settings": _settings(plan),
        "plugins": _plugins(plan),
        "this run": {
            "forward tokens": outcome.forward_tokens,
            "seconds": {name: round(spent, 1) for name, spent in outcome.seconds.items()},
            "peak memory": _peak_memory(),
            "log-likelihoods": outcome.scoring,
            "interrupted": outcome.interrupted,
        },
        "profiles": outcome.profiles,
    }


def _settings(plan: Plan) -> dict[str, Any]:
    """The suite's choices that no other entry tells, one value each: what merging compares."""
    suite = plan.suite
    methods: dict[str, dict[str, Any]] = {model.name: {} for model in plan.models}
    for cell in plan.cells:
        own = {} if cell.method.router == suite.router else {"router": cell.method.router}
        methods[cell.model][cell.method.name] = method_parts(cell.method) | own
    return {
        "router": suite.router,
        "corpora": {
            # The text itself is told by its hash, wherever it came from.
            name: corpus.model_dump(mode="json", exclude={"source"})
            for name, corpus in suite.corpora.items()
        },
        "methods": methods,
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _git_state(file: Path) -> str:
    """Commit of the checkout that tracks `file`, with a mark if the checkout has changes.

    What is installed may lie in the checkout of another project, which says nothing about it.
    """
    try:
        run = lambda *words: subprocess.run(  # noqa: E731
            ["git", "-C", str(file.parent), *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
        run("ls-files", "--error-unmatch", file.name)
        commit = run("rev-parse", "HEAD")
        return commit + (" with uncommitted changes" if run("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return "not tracked by git"


def _hardware() -> dict[str, Any]:
    hardware: dict[str, Any] = {
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "processors": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
    }
    # Only a run that used the GPU has torch loaded; a report alone need not pay for it.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        hardware["gpus"] = [torch.cuda.get_device_name(device) for device in devices]
    return hardware


def _peak_memory() -> dict[str, int]:
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


def _plugins(plan: Plan) -> dict[str, Any]:
    used = {}
    for cell in plan.cells:
        for kind, origin in cell.method.origins.items():
            name = f"{kind} {getattr(cell.method, kind).name}"
            used[name] = {"from": origin.distribution, "source sha256": origin.source_hash}
    return used
