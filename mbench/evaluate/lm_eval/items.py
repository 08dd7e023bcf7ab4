"""The rows of a task's per-item table: its documents with their requests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm_eval.utils import handle_non_serializable, hash_string

from mbench.core.item_texts import ItemText, end_of

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.task import Task

HASH = 12
"""Hexadecimal digits kept of each of an item's three hashes."""


@dataclass(frozen=True)
class Item:
    """One document of one task, with its requests."""

    subtask: str
    identity: str
    """`doc_id:doc_hash:prompt_hash:target_hash`, shortened; the last two as in lm-eval's own logs.

    Of the document, fields count by name: in which order a reader of JSON lines finds the columns
    of a file whose rows differ is up to its threads.
    """
    doc: Any
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class Prompt:
    """A request as one tokenizer and one model see it."""

    tokens: int
    """Of what goes before the answer, as the task writes it."""
    cut: int
    """Of these, tokens that are cut on the left because the model has not enough positions."""
    spanned: bool = False
    """Whether a token begins in the prompt and ends in the answer."""

    @property
    def kept(self) -> int:
        """Tokens that the model sees."""
        return self.tokens - self.cut


def text_of(task: Task, item: Item) -> ItemText:
    """What an item asks, as its own requests and target have it."""
    first = item.instances[0]
    target = task.doc_to_target(item.doc)
    choices: tuple[str, ...] = ()
    if first.request_type == "loglikelihood":
        # With acc_mutual_info every answer is scored once more, without its question.
        texts = [str(each.args[1]) for each in item.instances if each.args[0] == first.args[0]]
        choices = tuple(texts) if len(texts) == len(item.instances) else ()
    place = isinstance(target, int) and not isinstance(target, bool)
    known = place and 0 <= target < len(choices)
    return ItemText(
        item.identity, end_of(str(first.args[0])), choices, target if known else str(target)
    )


def read_items(name: str, task: Task, prefixed: bool) -> list[Item]:
    """The items of a task whose requests are built; `prefixed` by its name if one of many."""
    by_document: dict[int, list[Instance]] = {}
    for instance in task.instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    items = []
    for number, instances in by_document.items():
        instances.sort(key=lambda instance: instance.idx)
        first = instances[0]
        document = json.dumps(
            first.doc, sort_keys=True, default=handle_non_serializable, ensure_ascii=False
        )
        parts = (document, first.arguments[0], str(task.doc_to_target(first.doc)))
        hashes = ":".join(hash_string(part)[:HASH] for part in parts)
        identity = f"{name}/{number}:{hashes}" if prefixed else f"{number}:{hashes}"
        items.append(Item(name, identity, first.doc, tuple(instances)))
    return items
