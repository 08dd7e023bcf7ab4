"""Conversations of a file as a model's chat template renders them, whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mbench.core.chat import ChatSpec
from mbench.core.errors import ChatError, CorpusError
from mbench.moe.chat.template import ChatTemplate
from mbench.storage.text_files.conversations import Conversation, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Rendering:
    """A chat template, filled as a suite says, and what it is known to print."""

    def __init__(self, name: str, chat: ChatSpec, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises `CorpusError` for a tokenizer without a template. `name` is for errors."""
        self._name = name
        self._chat = chat
        try:
            self._template = ChatTemplate(tokenizer, chat)
        except ChatError as error:
            raise CorpusError(f"{name}: the model does not take conversations: {error}") from None
        self._printed: set[tuple[str, ...]] = set()
        """Kinds of messages that it does not leave out."""

    @property
    def unread(self) -> tuple[str, ...]:
        """Options of the suite that change nothing."""
        return self._template.unread

    def of(self, conversation: Conversation) -> str:
        """Render a conversation, behind the suite's system message where it has none itself.

        Raises `CorpusError`, naming its row, where the template refuses it, or leaves out messages
        of a role, or tools that are called.
        """
        messages = list(conversation.messages)
        if self._chat.system is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self._chat.system})
        where = f"{self._name}: {conversation.place}"
        try:
            rendered = self._template.render(messages)
        except ChatError as error:
            raise CorpusError(f"{where}: the model does not take it: {error}") from None
        for at, message in enumerate(messages):
            self._refuse_left_out(messages, at, message, rendered, where)
        return rendered

    def _refuse_left_out(
        self, messages: Sequence[Message], at: int, message: Message, rendered: str, where: str
    ) -> None:
        role = message["role"]
        place = "first" if at == 0 else "later"
        calls = "calling" if message.get("tool_calls") else "saying"
        altered: dict[tuple[str, ...], tuple[Message, str]] = {}
        # Some print what is called in place of the content: nothing is lost if that is empty.
        if message["content"]:
            other = {**message, "content": f"{message['content']}."}
            altered["content", role, place, calls] = (other, f"a message of {role!r}")
        if message.get("tool_calls"):
            silent = {key: value for key, value in message.items() if key != "tool_calls"}
            altered["tool_calls", role] = (silent, "`tool_calls`")
        for kind, (changed, what) in altered.items():
            if kind in self._printed:
                continue
            if self._renders([*messages[:at], changed, *messages[at + 1 :]]) == rendered:
                raise CorpusError(
                    f"{where}: the model's chat template leaves out {what} (message {at + 1})"
                )
            self._printed.add(kind)

    def _renders(self, messages: Sequence[Message]) -> str | None:
        try:
            return self._template.render(messages)
        except ChatError:
            return None
