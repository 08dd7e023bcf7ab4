"""What a record holds in place of a text, in words."""

from __future__ import annotations

from typing import Any

CHAT = ({"role", "content"}, {"from", "value"})
"""Keys of a message, in the two usual forms."""

CONVERSATIONS = ("messages", "conversations", "conversation")
"""Usual names of fields with chats."""

NO_CHATS = "a conversation is no text: name its field in `messages`, in place of `field`"


class Object(list[tuple[str, Any]]):
    """A JSON object as written: its (key, value) pairs, of which two may have the same key."""

    @property
    def keys(self) -> list[str]:
        """In order."""
        return [key for key, _ in self]


def why_no_text(value: Any) -> str | None:
    """Why a value is not a text that can be tokenised, or None if it is one."""
    if not isinstance(value, str):
        return f"is {kind_of(value)}, not a string"
    if value.isascii():
        return None
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = f"{value[error.start]!a} at character {error.start + 1}"
        return f"has half of a surrogate pair, which is no character: {half}"
    return None


def kind_of(value: Any) -> str:
    """What a value that JSON, parquet, Arrow or Python can hold is."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"a number ({_short(value)})"
    if isinstance(value, str):
        return "a string"
    if _is_chat(value):
        return f"a list of chat messages ({NO_CHATS})"
    if isinstance(value, (Object, dict)):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    return f"of type {type(value).__name__}"


def fields_of(names: list[str]) -> str:
    """The fields that a record has, for one that lacks the asked one."""
    listed = ", ".join(_short(name) for name in names[:20]) + (", ..." if len(names) > 20 else "")
    chat = f" ({NO_CHATS})" if any(name in CONVERSATIONS for name in names) else ""
    return f"it has {listed or 'none'}{chat}"


def _is_chat(value: Any) -> bool:
    if not isinstance(value, (list, tuple)) or isinstance(value, Object) or not value:
        return False
    first = value[0]
    keys = set(first.keys) if isinstance(first, Object) else set()
    if isinstance(first, dict):
        keys = set(first)
    return any(needed <= keys for needed in CHAT)


def _short(value: Any) -> str:
    """`repr` has no line ends."""
    try:
        text = ascii(value)
    except ValueError:  # an integer of thousands of digits
        return "a very long number"
    return text if len(text) <= 40 else f"{text[:40]}..."
