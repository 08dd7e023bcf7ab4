"""Reads local lm-eval task files and the names of lm-eval's own tasks, without importing lm-eval.

lm-eval skips files it cannot read and silently picks one of two tasks or keys of the same name;
here these are errors, because otherwise another task may run than the suite means.
"""

from __future__ import annotations

import glob
import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mbench.core.errors import TaskError, one_line, unknown
from mbench.evaluate.lm_eval import builtin

LOCAL_FORMATS = frozenset({"arrow", "csv", "json", "parquet", "text"})
"""Values of `dataset_path` under which `data_files` are files of this machine."""

IGNORED_FOLDERS = frozenset({"__pycache__", ".ipynb_checkpoints"})


@dataclass(frozen=True)
class Function:
    """A `!function` reference of a task file."""

    reference: str
    """`module.function`."""
    folder: Path
    """Folder of the file that refers to it; a module there takes precedence over installed ones."""


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
        if not root.is_dir():
            raise TaskError(f"{root}: no such directory of task files")
        below = sorted(root.glob("**/*.yaml"), key=lambda path: path.as_posix())
        paths |= dict.fromkeys(path for path in below if not IGNORED_FOLDERS & set(path.parts))
    for path in paths:
        _add(catalogue, read_file(path))
    return catalogue


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


def read_file(path: Path, including: tuple[Path, ...] = (), *, repeats: bool = False) -> TaskFile:
    """Parse one file with what it includes; its own keys go before included ones.

    Args:
        path: the file.
        including: the files that led to it, outermost first.
        repeats: whether a key may be repeated; some of lm-eval's own files do so.

    Raises:
        TaskError: the file or one that it includes is missing, no YAML mapping, repeats a key, or
            includes itself.
    """
    if path in including:
        raise TaskError(f"{path}: the file includes itself")
    functions: list[Function] = []
    try:
        config = yaml.load(
            path.read_text(encoding="utf-8"), Loader=_loader(path, functions, repeats)
        )
    except OSError as error:
        by = f" (included by {including[-1]})" if including else ""
        raise TaskError(f"{path}: {error.strerror or 'cannot be read'}{by}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise TaskError(f"{place}: malformed task file: {error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: malformed task file: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise TaskError(
            f"{path}: malformed task file: it must be a mapping, not {type(config).__name__}"
        )
    chain = [path]
    merged: dict[str, Any] = {}
    includes = config.pop("include", None) or []
    for include in [includes] if isinstance(includes, str) else includes:
        included = (path.parent / include).resolve()
        part = read_file(included, (*including, path), repeats=repeats)
        merged |= part.config
        chain += [other for other in part.chain if other not in chain]
        functions += part.functions
    return TaskFile(merged | config, tuple(chain), tuple(functions))


def _loader(path: Path, functions: list[Function], repeats: bool) -> type[yaml.SafeLoader]:
    """A loader that adds `!function` references to a list, and may refuse repeated keys."""

    # libyaml's fast loader is not in every build of PyYAML; its class is known at run time only.
    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            names = set()
            # A key that is a list or a mapping is refused below, as no Python key.
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in names and not repeats:
                    problem = f"the key {key.value!r} is repeated"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                names.add(key.value)
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            return mapping

    def function(_: yaml.SafeLoader, node: yaml.Node) -> Function:
        functions.append(Function(str(node.value), path.parent))
        return functions[-1]

    Loader.add_constructor("!function", function)
    return Loader


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
            pending += member["task"]
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
