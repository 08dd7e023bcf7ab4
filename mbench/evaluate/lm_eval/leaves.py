"""The single tasks that a name stands for, as lm-eval would build them; does not import lm-eval.

A group may change what its members say, so only the members within their groups tell which data
they load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mbench.core.errors import TaskError, unknown
from mbench.evaluate.lm_eval import builtin, task_files
from mbench.evaluate.lm_eval.task_files import Catalogue, TaskFile

OF_GROUPS = frozenset({"group", "group_alias", "task", "aggregate_metric_list", "metadata"})
"""What a group says of itself; all else in its file changes its members."""


@dataclass(frozen=True)
class Leaf:
    """A single task."""

    name: str
    config: Mapping[str, Any]
    """Its file with what the groups around it change; `!function` references as they are."""
    chain: tuple[Path, ...]
    """Its file, then all that this includes; of a task written out in a group, the group's."""


def leaves(name: str, directories: Sequence[Path]) -> list[Leaf]:
    """The tasks that a task, group or tag consists of, in lm-eval's order.

    Raises:
        TaskError: as `task_files.read`, or a name is unknown.
    """
    return list(_Names(task_files.read(directories)).leaves(name, {}, ()))


@dataclass(frozen=True)
class _Names:
    local: Catalogue

    def leaves(
        self, name: str, changes: Mapping[str, Any], within: tuple[str, ...]
    ) -> Iterator[Leaf]:
        """Of a name that a suite or a group lists."""
        if name in within:
            raise TaskError(f"the group {name!r} contains itself")
        file = self._file(name)
        if file is not None and file.is_group:
            yield from self._members(name, file.config, file.chain, changes, (*within, name))
        elif file is not None:
            yield Leaf(name, {**file.config, **changes}, file.chain)
        else:
            for tagged in self._tagged(name):
                yield from self.leaves(tagged, changes, (*within, name))

    def _members(
        self,
        group: str,
        config: Mapping[str, Any],
        chain: tuple[Path, ...],
        changes: Mapping[str, Any],
        within: tuple[str, ...],
    ) -> Iterator[Leaf]:
        changes = {**{k: v for k, v in config.items() if k not in OF_GROUPS}, **changes}
        for member in config.get("task") or ():
            if isinstance(member, str):
                yield from self.leaves(member, changes, within)
            elif isinstance(member, Mapping):
                yield from self._member(group, member, chain, changes, within)

    def _member(
        self,
        group: str,
        member: Mapping[str, Any],
        chain: tuple[Path, ...],
        changes: Mapping[str, Any],
        within: tuple[str, ...],
    ) -> Iterator[Leaf]:
        """Of a mapping in a group's list: a name with changes, or a task or group in full."""
        if "group" in member:
            name = str(member["group"])
            if self._is_known(name):
                others = {key: value for key, value in member.items() if key != "group"}
                yield from self.leaves(name, {**changes, **others}, within)
            else:
                yield from self._members(f"{group}::{name}", member, chain, changes, within)
            return
        name = str(member.get("task"))
        if self._is_known(name):
            yield from self.leaves(name, {**changes, **member}, within)
        else:
            yield Leaf(f"{group}::{name}", {**changes, **member}, chain)

    def _is_known(self, name: str) -> bool:
        return name in self.local.files or name in self.local.tags or name in builtin.index().names

    def _file(self, name: str) -> TaskFile | None:
        if name in self.local.files or name in self.local.tags:
            return self.local.files.get(name)
        for path in builtin.index().files.get(name, ()):
            file = task_files.read_file(path, repeats=True) if path.suffix == ".yaml" else None
            if file is not None and name == file.config.get("group" if file.is_group else "task"):
                return file
        return None

    def _tagged(self, tag: str) -> list[str]:
        """The tasks that bear a tag, sorted; never none."""
        if tag in self.local.tags:
            return sorted(self.local.tags[tag])
        names = set()
        for path in builtin.index().tagged(tag):
            file = task_files.read_file(path, repeats=True)
            tags = file.config.get("tag") or ()
            if not file.is_group and tag in ([tags] if isinstance(tags, str) else tags):
                names.add(str(file.config.get("task")))
        names |= set(self.local.tags.get(tag, ()))
        if not names:
            known = {*self.local.names, *builtin.index().names}
            raise TaskError(unknown("lm-eval task, group or tag", tag, known))
        return sorted(names)
