"""The lock of a run: its suite, and all that decides its figures, so that it can be repeated.

A file of JSON that people can read. It names files relative to the working directory or to `~`, and
holds a checksum of each of its sections.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mbench.core.clean_text import cleaned
from mbench.core.errors import MbenchError, SuiteError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.fingerprint import local_files
from mbench.plan.plan import Plan
from mbench.plan.registry import Registry
from mbench.storage.checkpoints import Directory
from mbench.storage.distributions import installed
from mbench.storage.file_hash import file_hash
from mbench.storage.inputs import Pins
from mbench.storage.records import from_plain, to_plain
from mbench.storage.source_code import files_behind
from mbench.storage.store import Store

ABOUT = (
    "A lock of mbench: `mbench run` with this file repeats a run exactly. It is written by mbench"
    " and not to be edited: `mbench lock SUITE` writes another."
)


@dataclass(frozen=True)
class LockedFile:
    """A file of the machine of the run."""

    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class LockedPlugin:
    """A plugin's file."""

    file: LockedFile
    given: bool
    """With --plugin; others are imported by such a file, and lie beside it."""


@dataclass(frozen=True)
class Versions:
    """What computes."""

    mbench: str
    python: str
    code: Mapping[str, str]
    """Folder or file of mbench -> sha256."""
    packages: Mapping[str, str]
    """Of installed packages that decide figures, without the build's variant such as `+cpu`."""


@dataclass(frozen=True)
class Identities:
    """Hashes of what the suite names, by its names: they tell what differs where no file does."""

    models: Mapping[str, str]
    corpora: Mapping[str, str]
    tasks: Mapping[str, str]
    """Perplexity texts among them."""
    components: Mapping[str, str]
    """Kind and name of a method's part -> hash of its source."""


@dataclass(frozen=True)
class Lock:
    """Its sections, in the order in which they stand in the file."""

    suite: Mapping[str, object]
    """As it was run, options included; plain values."""
    versions: Versions
    hub: Pins
    files: Mapping[str, LockedFile]
    """Of texts, tasks with their code and data, and models, by path."""
    plugins: Mapping[str, LockedPlugin]
    """Files given with --plugin and those beside them that they import, by path."""
    identities: Identities
    installed: tuple[str, ...]
    """All installed packages, as `name==version`."""

    def to_text(self) -> str:
        """The file."""
        sections = {field.name: to_plain(getattr(self, field.name)) for field in fields(self)}
        sums = {name: _checksum(section) for name, section in sections.items()}
        return json.dumps({"about": ABOUT, "checksums": sums, **sections}, indent=1) + "\n"


WORDS = ("title", "description")
"""Keys of a suite that are text for people."""


def lock_of(plan: Plan, suite: Mapping[str, Any]) -> Lock:
    """The lock of a plan; `suite` is what its suite was read from, options included.

    Raises `MbenchError` where a file cannot be read.
    """
    # Its words decide nothing and are shown to others; all else must stay as it is.
    words = {name: cleaned(text) for name, text in suite.items() if name in WORDS}
    portable = _with_portable_paths({**suite, **words})
    store = plan.inputs.store
    files = {path for path in _input_files(plan) if not _is_installed(path)}
    return Lock(
        suite=portable,
        versions=Versions(
            mbench=importlib.metadata.version("mbench"),
            python=platform.python_version(),
            code=dict(sorted(plan.code.hashes.items())),
            packages=dict(sorted(_packages(plan).items())),
        ),
        hub=plan.inputs.pins(),
        files=_locked(files, store),
        plugins=_plugins(plan.registry, store),
        identities=_identities(plan),
        installed=tuple(sorted(set(installed()))),
    )


def _identities(plan: Plan) -> Identities:
    components = {
        f"{kind} {key.name}": key.source
        for cell in plan.cells
        for kind, key in cell.components.items()
    }
    return Identities(
        models={model.name: model.key for model in plan.checkpoints},
        corpora={name: _checksum(text.identity()) for name, text in plan.texts_used().items()},
        tasks={task.name: _checksum(to_plain(task.fingerprint)) for task in plan.tasks},
        components=dict(sorted(components.items())),
    )


def _packages(plan: Plan) -> dict[str, str]:
    packages = dict(plan.code.versions)
    if any(isinstance(task.spec, LmEvalTask) for task in plan.tasks):
        packages["lm-eval"] = importlib.metadata.version("lm-eval")
    for cell in plan.cells:
        keys = [job.key.made_by["statistic"] for jobs in cell.statistics.values() for job in jobs]
        for part in (*(key.parts() for key in cell.components.values()), *keys):
            packages |= part["distributions"]
    return packages


def _input_files(plan: Plan) -> Iterator[Path]:
    """Of this machine: models, texts, task files with their code, and data."""
    for model in plan.checkpoints:
        if isinstance(model.checkpoint, Directory):
            yield from (model.checkpoint.folder / name for name in model.checkpoint.names.all)
    for text in (*plan.texts.values(), *(task.text for task in plan.tasks)):
        for path in (text.source.files if text else None) or ():
            yield Path(path).expanduser()
    for task in plan.tasks:
        if isinstance(task.spec, LmEvalTask):
            yield from local_files(task.name, task.spec, task.directories)
        for data in task.data:
            yield from (path for paths in data.files.values() for path in paths)


def _plugins(registry: Registry, store: Store) -> dict[str, LockedPlugin]:
    given = {Path(file).resolve() for file in registry.files}
    behind = {path.resolve() for file in given for path in files_behind(file)}
    beside = {path for path in behind if any(path.is_relative_to(f.parent) for f in given)}
    names = {_portable(path) for path in given}
    locked = _locked(given | beside, store)
    return {name: LockedPlugin(file, name in names) for name, file in locked.items()}


def _is_installed(path: Path) -> bool:
    """Whether a file belongs to an installed package, whose place says nothing elsewhere."""
    home = Path(__file__).parents[2]
    resolved = path.resolve()
    places = [home / "plugins", home / "mbench"]
    return "site-packages" in resolved.parts or any(
        resolved.is_relative_to(place) for place in places
    )


def _locked(paths: set[Path], store: Store) -> dict[str, LockedFile]:
    locked = {}
    for path in sorted(paths):
        try:
            locked[_portable(path)] = LockedFile(file_hash(path, store), path.stat().st_size)
        except OSError as error:
            raise MbenchError(f"{path}: {error.strerror or 'cannot be read'}") from error
    return dict(sorted(locked.items()))


def _portable(path: Path) -> str:
    """A path without the names of users: relative to the working directory, or to `~`."""
    absolute = path.expanduser().absolute()
    for place, prefix in ((Path.cwd(), Path()), (Path.home(), Path("~"))):
        if absolute.is_relative_to(place):
            return (prefix / absolute.relative_to(place)).as_posix()
    return absolute.as_posix()


def _with_portable_paths(suite: Mapping[str, Any]) -> dict[str, Any]:
    """The suite with its absolute paths made portable."""

    def portable(path: Any) -> Any:
        return _portable(Path(path)) if Path(path).is_absolute() else path

    changed: dict[str, Any] = json.loads(json.dumps(suite))
    for model in (changed.get("models") or {}).values():
        if model.get("path"):
            model["path"] = portable(model["path"])
    for section in ("methods", "candidates"):
        for method in (changed.get(section) or {}).values():
            # A hub id is never absolute.
            if method and method.get("checkpoint"):
                method["checkpoint"] = portable(method["checkpoint"])
    for section in ("corpora", "perplexity"):
        for text in (changed.get(section) or {}).values():
            source = text.get("source") or {}  # a mix has none
            if source.get("files"):
                source["files"] = [portable(path) for path in source["files"]]
    for task in (changed.get("tasks") or {}).values():
        if task and task.get("directory"):
            task["directory"] = portable(task["directory"])
    return changed


def _checksum(section: Any) -> str:
    text = json.dumps(section, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def is_lock(path: Path) -> bool:
    """Whether a file is a lock, by its content; a damaged one by its name."""
    if not path.is_file():
        return False  # a pipe would wait for its writer
    try:
        with path.open("rb") as file:
            return ABOUT.split(":")[0].encode() in file.read(200) or path.suffix == ".lock"
    except OSError:
        return False


def read_lock(path: Path) -> Lock:
    """The lock in a file; raises `SuiteError` with the place where it is not as it was written."""
    again = "write it anew with `mbench lock SUITE`"
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"{path}:{error.lineno}:{error.colno}"
        raise SuiteError(f"{place}: the lock is damaged ({error.msg}): {again}") from None
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text of JSON"
        raise SuiteError(f"{path}: the lock cannot be read ({reason}): {again}") from None
    names = [field.name for field in fields(Lock)]
    if not isinstance(data, dict) or list(data) != ["about", "checksums", *names]:
        raise SuiteError(f"{path}:1: the lock is damaged (sections are missing): {again}")
    sums = data["checksums"] if isinstance(data["checksums"], dict) else {}
    for name in names:
        if sums.get(name) != _checksum(data[name]):
            # At the top where another program has written it with other spaces.
            line = text[: text.find(f'\n "{name}": ') + 1].count("\n") + 1
            raise SuiteError(
                f"{path}:{line}: the section {name!r} was changed after it was written (its"
                f" checksum differs): {again}, or change the suite instead"
            )
    try:
        return from_plain(Lock, {name: data[name] for name in names})
    except ValueError as error:
        raise SuiteError(f"{path}: the lock is of another version of mbench: {error}") from None
