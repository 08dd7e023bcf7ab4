"""Reads local lm-eval task files and the names of lm-eval's own tasks, without importing lm-eval.

lm-eval skips files it cannot read and silently picks one of two tasks or keys of the same name;
here these are errors, because otherwise another task may run than the suite means.
"""

from __future__ import annotations

import glob
import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mbench.core.errors import TaskError, one_line, unknown
from mbench.evaluate.lm_eval import builtin
from mbench.evaluate.lm_eval.task_yaml import Function, parse

LOCAL_FORMATS = frozenset({"arrow", "csv", "json", "parquet", "text"})
"""Values of `dataset_path` under which `data_files` are files of this machine."""

IGNORED_FOLDERS = frozenset({"__pycache__", ".ipynb_checkpoints"})


MOST_FILES = 20_000
"""Below a folder of task files."""

MOST_INCLUDES = 20
"""Of files that include each other in a row."""


@dataclass(frozen=True)
class TaskFile:
    """A task or group file with its includes."""

    config: Mapping[str, Any]
    chain: tuple[Path, ...]
    """The file, then everything it includes."""
    functions: tuple[Function, ...] = ()
    """All that these files refer to: lm-eval imports even those that an including file replaces."""

    @property
    def path(self) -> Path:
        """The file itself."""
        return self.chain[0]

    @property
    def is_group(self) -> bool:
        """Whether it lists tasks and is none itself, by lm-eval's own rule."""
        return "group" in self.config and "class" not in self.config


@dataclass(frozen=True)
class Definition:
    """What a task, group or tag consists of."""

    files: tuple[TaskFile, ...]
    """Local ones."""
    builtin: tuple[str, ...]
    """Names that no local file defines, so that they must be lm-eval's own."""


@dataclass
class Catalogue:
    """What a list of directories defines."""

    files: dict[str, TaskFile] = field(default_factory=dict)
    """By the name of the task or group."""
    tags: dict[str, list[str]] = field(default_factory=dict)
    """Tag -> names of its tasks."""

    @property
    def names(self) -> list[str]:
        """All names that lm-eval would accept from here."""
        return sorted({*self.files, *self.tags})

    def resolve(self, name: str, within: tuple[str, ...] = ()) -> Definition:
        """The files of a task, group or tag; `within` are the groups that led to it."""
        if name in within:
            raise TaskError(f"{self.files[name].path}: the group {name!r} contains itself")
        if name in self.files:
            file = self.files[name]
            files, members = [file], _members(file) if file.is_group else []
        elif name in self.tags:
            files, members = [], sorted(self.tags[name])
        else:
            return Definition((), (name,))
        parts = [self.resolve(member, (*within, name)) for member in members]
        return Definition(
            (*files, *(file for part in parts for file in part.files)),
            tuple(other for part in parts for other in part.builtin),
        )


def find(name: str, directories: Iterable[Path]) -> Definition:
    """What a task, group or tag consists of; local files go before lm-eval's own.

    Raises:
        TaskError: as `read`, or the name, or one that a group lists, is unknown.
    """
    catalogue = read(directories)
    definition = catalogue.resolve(name)
    for other in definition.builtin:
        if other not in builtin.index().names:
            names = {*catalogue.names, *builtin.index().names}
            raise TaskError(unknown("lm-eval task, group or tag", other, names))
    return definition


def read(directories: Iterable[Path]) -> Catalogue:
    """Parse all task files below the directories.

    Raises:
        TaskError: a directory or included file is missing, a file is not valid YAML or not a
            mapping, a key is repeated in it, or two files define the same name.
    """
    catalogue = Catalogue()
    roots = list(dict.fromkeys(Path(directory).expanduser().resolve() for directory in directories))
    paths: dict[Path, None] = {}
    for root in roots:
        paths |= dict.fromkeys(sorted(_below(root), key=lambda path: path.as_posix()))
    for path in paths:
        _add(catalogue, read_file(path))
    return catalogue


def _below(root: Path) -> Iterator[Path]:
    """The task files below a folder; a folder of everything is refused before it is read."""
    if not root.is_dir():
        raise TaskError(f"{root}: no such directory of task files")
    seen = 0
    for folder, folders, files in os.walk(root):
        seen += len(folders) + len(files)
        if seen > MOST_FILES:
            problem = f"more than {MOST_FILES} files and folders"
            raise TaskError(f"{root}: {problem}: name the folder that has the task files alone")
        folders[:] = [name for name in folders if name not in IGNORED_FOLDERS]
        yield from (Path(folder, name) for name in files if name.endswith(".yaml"))


def _add(catalogue: Catalogue, file: TaskFile) -> None:
    name = file.config.get("group" if file.is_group else "task")
    if not isinstance(name, str):
        return  # a fragment that others include
    if name in catalogue.files:
        other = catalogue.files[name].path
        raise TaskError(f"task {name!r} is defined twice: in {other} and in {file.path}")
    catalogue.files[name] = file
    tags = file.config.get("tag") or []
    for tag in [tags] if isinstance(tags, str) else tags:
        if not file.is_group:
            catalogue.tags.setdefault(tag, []).append(name)


def read_file(
    path: Path,
    including: tuple[Path, ...] = (),
    *,
    repeats: bool = False,
    known: dict[Path, TaskFile] | None = None,
) -> TaskFile:
    """Parse one file with what it includes; its own keys go before included ones.

    Args:
        path: the file.
        including: the files that led to it, outermost first.
        repeats: whether a key may be repeated; some of lm-eval's own files do so.
        known: files that were read on the way, each of which is read once.

    Raises:
        TaskError: the file or one that it includes is missing, no YAML mapping, repeats a key, or
            includes itself.
    """
    if path in including:
        raise TaskError(f"{path}: the file includes itself")
    if len(including) > MOST_INCLUDES:
        raise TaskError(f"{path}: included by more than {MOST_INCLUDES} files in a row")
    try:
        config, functions = parse(path, repeats=repeats)
    except FileNotFoundError as error:
        by = f" (included by {including[-1]})" if including else ""
        raise TaskError(f"{path}: {error.strerror}{by}") from error
    known = {} if known is None else known
    chain = [path]
    merged: dict[str, Any] = {}
    includes = config.pop("include", None) or []
    for include in dict.fromkeys([includes] if isinstance(includes, str) else includes):
        try:
            included = (path.parent / include).resolve()
        # A circle of links.
        except (OSError, RuntimeError, ValueError) as error:
            raise TaskError(f"{path}: include: {one_line(error)}") from error
        if included not in known:
            above = (*including, path)
            known[included] = read_file(included, above, repeats=repeats, known=known)
        part = known[included]
        merged |= part.config
        chain += [other for other in part.chain if other not in chain]
        functions += part.functions
    return TaskFile(merged | config, tuple(chain), tuple(functions))


def _members(group: TaskFile) -> list[str]:
    """Names that a group lists; groups written out inside another are looked into."""
    names = []
    pending = list(group.config.get("task") or [])
    for member in pending:
        if isinstance(member, str):
            names.append(member)
            continue
        if "dataset_kwargs" in member:
            raise TaskError(
                f"{group.path}: a task with dataset_kwargs cannot be defined inside a group: give"
                " it a file of its own"
            )
        if isinstance(member.get("task"), str):
            names.append(member["task"])
        elif "task" in member:
            pending += member["task"] or []
        elif "group" in member:
            names.append(member["group"])
    return names


def locate(config: Mapping[str, Any], chain: Sequence[Path]) -> dict[str, list[str]] | None:
    """The task's data files by split, or None if it has no files on this machine.

    A relative path is looked for in the folder of the task file (and of those it includes), then
    in the folder above, then in the working directory. URLs and absolute paths stay.

    Raises:
        TaskError: a relative path or pattern matches no file in any of these folders.
    """
    listed = (config.get("dataset_kwargs") or {}).get("data_files")
    if listed is None or config.get("dataset_path") not in LOCAL_FORMATS:
        return None
    splits = listed if isinstance(listed, Mapping) else {"train": listed}
    beside = list(dict.fromkeys(path.parent for path in chain))
    folders = list(dict.fromkeys([*beside, *(folder.parent for folder in beside), Path.cwd()]))

    def absolute(pattern: str) -> str:
        if "://" in pattern or Path(pattern).is_absolute():
            return pattern
        for folder in folders:
            if glob.glob(pattern, root_dir=folder, recursive=True):
                return str(folder / pattern)
        places = ", ".join(map(str, folders))
        raise TaskError(
            f"task {config.get('task')!r}: no data file {pattern!r} (looked in {places})"
        )

    return {
        str(split): [absolute(part) for part in ([parts] if isinstance(parts, str) else parts)]
        for split, parts in splits.items()
    }


def module_of(function: Function) -> Path:
    """The file of a function's module, found without importing anything; raises `TaskError`."""
    *parts, _ = function.reference.split(".")
    stems = [function.folder.joinpath(*parts)]
    if parts and not stems[0].with_suffix(".py").exists():
        package = importlib.util.find_spec(parts[0])
        # A package's folder may have another name than the package.
        if package is not None and package.submodule_search_locations is not None:
            stems = [Path(p).joinpath(*parts[1:]) for p in package.submodule_search_locations]
        elif package is not None and package.origin is not None:
            stems = [Path(package.origin).parent.joinpath(*parts)]
    for stem in stems:
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                return path
    raise TaskError(
        f"the module of !function {function.reference} is neither in {function.folder} nor"
        " installed"
    )
