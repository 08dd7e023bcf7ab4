"""Which code task files bring along; found without importing any of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path

from mbench.evaluate.lm_eval import task_files
from mbench.evaluate.lm_eval.task_files import module_of
from mbench.evaluate.lm_eval.task_yaml import Function


def code_of(
    name: str, directories: Sequence[Path], installed: Sequence[Path]
) -> Iterator[tuple[Path, Function]]:
    """The task files that bring code of their own, with each function that they refer to.

    Code inside lm-eval is installed already, and so is that of task files of plugins.

    Args:
        name: of a task, group or tag.
        directories: folders of local task files.
        installed: those of them that come with plugins.

    Raises:
        TaskError: as `task_files.find`, or there is no such module.
    """
    folders = [path.expanduser().resolve() for path in installed]
    for file in task_files.find(name, directories).files:
        if any(file.path.is_relative_to(folder) for folder in folders):
            continue
        for function in file.functions:
            module = module_of(function).resolve()
            if not any(module.is_relative_to(folder) for folder in _folders_of("lm_eval")):
                yield file.path, function


def _folders_of(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    return [Path(place).resolve() for place in (spec and spec.submodule_search_locations) or ()]
