"""What determines a task's items and their scoring, as JSON values; does not import lm-eval."""

from __future__ import annotations

import glob
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mbench.core.errors import TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval import task_files
from mbench.evaluate.lm_eval.task_files import Function, TaskFile
from mbench.storage.source_code import files_behind


def task_fingerprint(name: str, spec: LmEvalTask, directories: Sequence[Path]) -> dict[str, Any]:
    """Equal for tasks that score the same items in the same way, whatever a suite calls them.

    Local task files count by content: the YAML with all it includes, the Python files in the
    folder of each `!function` module and what the module imports, and the data files. Built-in
    tasks count by name and lm-eval's version, which also decides how any task is scored. Data that
    code fetches by itself, or that a hub dataset without a pinned revision holds, cannot be seen
    from here.

    Args:
        name: the suite's name of the task, which is lm-eval's too where `spec` gives none.
        spec: which task, and what of it.
        directories: folders of local task files.

    Raises:
        TaskError: the name is unknown, a local task file is malformed, or a file it needs is
            missing.
    """
    task = spec.lm_eval_name(name)
    definition = task_files.find(task, directories)
    chain = {path for file in definition.files for path in file.chain}
    code = {path for file in definition.files for path in _code(file)}
    # All keys but those that affect no figure: so a key that is new in suites counts at once.
    settings = spec.model_dump(exclude={"task", "directory", "metric", "expect"})
    return {
        "kind": "lm-eval",
        "lm_eval": version("lm_eval"),
        "task": task,
        **settings,
        "builtin": sorted(definition.builtin),
        "yaml": _digests(chain),
        "code": _digests(code),
        "data": [_data(file) for file in definition.files],
    }


def _data(file: TaskFile) -> dict[str, list[str]]:
    """Digests of the data files by split; of URLs, the address."""
    located = task_files.locate(file.config, file.chain) or {}
    return {
        split: [
            part if "://" in pattern else _digest(Path(part))
            for pattern in patterns
            for part in (sorted(glob.glob(pattern, recursive=True)) or [pattern])
        ]
        for split, patterns in located.items()
    }


def _code(file: TaskFile) -> Iterator[Path]:
    for function in _functions(file.config):
        module = _module(function, file)
        yield from module.parent.glob("*.py")
        yield from files_behind(module)


def _functions(value: Any) -> Iterator[Function]:
    if isinstance(value, Function):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _functions(part)
    elif isinstance(value, list):
        for part in value:
            yield from _functions(part)


def _module(function: Function, file: TaskFile) -> Path:
    """The file of a function's module, found without importing anything."""
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
        f"{file.path}: the module of !function {function.reference} is neither in"
        f" {function.folder} nor installed"
    )


def _digests(paths: Iterable[Path]) -> list[str]:
    return sorted(_digest(path) for path in paths)


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror or 'cannot be read'}") from error
