"""What a record holds as a conversation: a list of messages, in either of the usual layouts.

- `{role: ..., content: ...}`. The content is a string, or a list of parts `{type: text, text:
  ...}`, which are joined by nothing, as templates that take them do. It may be missing beside
  `tool_calls`. Further keys stay, for templates that know them.
- `{from: ..., value: ...}`, as ShareGPT has it: `human` is the user, `gpt` the assistant, `system`
  the system, and nobody else is known. Further keys are left out.

Keys without a value are left out, as tables have every key in every message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mbench.storage.text_files.values import Object, kind_of, why_no_text

Message = Mapping[str, Any]
"""A role, a content (a string), and what else a template may know."""

SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
"""Of ShareGPT -> role."""


@dataclass(frozen=True)
class Conversation:
    """One record's messages."""

    messages: tuple[Message, ...]
    place: str
    """File and row, for errors."""

    @property
    def contents(self) -> list[str]:
        """What was written, without who wrote it."""
        return [message["content"] for message in self.messages]

    @property
    def turns(self) -> int:
        """Messages but those of the system."""
        return sum(message["role"] != "system" for message in self.messages)

    @property
    def blank(self) -> bool:
        """Whether nothing was written or called in it."""
        called = any(message.get("tool_calls") for message in self.messages)
        return not called and not "".join(self.contents).strip()


def messages_of(value: Any) -> tuple[Message, ...]:
    """The messages that a value holds; raises `ValueError` for what is none, in words."""
    plain = _plain(value)
    if isinstance(plain, dict):
        plain = _rows(plain)
    if not isinstance(plain, list):
        raise ValueError(f"is {kind_of(value)}, not a list of messages")
    found = []
    for number, message in enumerate(plain, 1):
        try:
            found.append(_message(message))
        except ValueError as error:
            raise ValueError(f"message {number} {error}") from None
    return tuple(found)


def _plain(value: Any) -> Any:
    """Objects as dicts, without keys that have no value."""
    if isinstance(value, Object):
        for key in value.keys:
            if value.keys.count(key) > 1:
                raise ValueError(f"has the key {key!a} {value.keys.count(key)} times")
        value = dict(list(value))
    if isinstance(value, Mapping):
        return {key: _plain(held) for key, held in value.items() if held is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(held) for held in value]
    return value


def _rows(columns: dict[str, Any]) -> Any:
    """A table as some datasets declare conversations, `{role: [...], content: [...]}`, by row."""
    held = list(columns.values())
    same = len({len(column) if isinstance(column, list) else -1 for column in held}) == 1
    if not held or not same or not isinstance(held[0], list):
        return columns
    return [
        {key: value for key, value in zip(columns, row, strict=True) if value is not None}
        for row in zip(*held, strict=True)
    ]


def _message(message: Any) -> Message:
    if not isinstance(message, dict):
        raise ValueError(f"is {kind_of(message)}, not an object")
    if "role" in message:
        role = _text(message["role"], "role")
        content = _content(message)
        return {**message, "role": role, "content": content}
    if {"from", "value"} <= set(message):
        speaker = _text(message["from"], "from")
        if speaker not in SPEAKERS:
            raise ValueError(f"is from {speaker!a}, who is none of {', '.join(SPEAKERS)}")
        return {"role": SPEAKERS[speaker], "content": _text(message["value"], "value")}
    keys = ", ".join(ascii(key) for key in list(message)[:20]) or "nothing"
    raise ValueError(f"has neither role and content nor from and value, but {keys}")


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if content is None:
        if message.get("tool_calls"):
            return ""
        raise ValueError("has a role, but no content")
    if not isinstance(content, list):
        return _text(content, "content")
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind != "text":
            what = f"of type {kind!a}" if kind else f"that is {kind_of(part)}"
            raise ValueError(f"has a part {what}; parts of type 'text' are read")
    return "".join(_text(part.get("text"), "text") for part in content)


def _text(value: Any, key: str) -> str:
    problem = why_no_text(value)
    if problem is not None:
        raise ValueError(f"has a {key} that {problem}")
    return str(value)
