"""lm-eval's prompts in a model's chat template, made by lm-eval's own code and rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mbench.core.chat import ChatSpec
from mbench.core.errors import ChatError
from mbench.moe.chat.template import ChatTemplate, TemplateRefusal

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from transformers import PreTrainedTokenizerBase


class ChatPrompts:
    """Puts lm-eval's prompts into the chat template of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat: ChatSpec) -> None:
        """Raises `ChatError` where the tokenizer's template cannot be used; see `ChatTemplate`."""
        self._template = ChatTemplate(tokenizer, chat)
        self._chat = chat
        self._made = 0
        self._left_out = 0
        self.without_system = 0
        """Prompts whose description was left out, as the template takes no system message."""

    @property
    def options(self) -> dict[str, Any]:
        """What lm-eval's functions that make prompts are to be given."""
        return {
            "apply_chat_template": True,
            "chat_template": self._render,
            "system_instruction": self._chat.system,
            "fewshot_as_multiturn": self._chat.turns,
        }

    def make(self, name: str, task: Task, limit: int | None) -> None:
        """Make the requests of a task; raises `ChatError` for one that no template applies to."""
        kind = task.OUTPUT_TYPE
        if kind == "loglikelihood_rolling":
            raise ChatError(
                f"{name} scores whole texts, which no chat template applies to: give it `chat:"
                " {template: false}`"
            )
        if kind != "generate_until" and self._chat.options.get("enable_thinking") is True:
            # lm-eval refuses it, too.
            raise ChatError(
                f"{name} scores answers right after the prompt, which leaves no room for thoughts:"
                " give it a `chat` of its own without `enable_thinking: true`"
            )
        before, left_out = self._made, self._left_out
        task.build_all_requests(limit=limit, rank=0, world_size=1, **self.options)
        if self._made - before < len({instance.doc_id for instance in task.instances}):
            raise ChatError(
                f"the code of {name} makes its prompts itself, without a chat template: give it"
                " `chat: {template: false}`"
            )
        self.without_system += self._left_out - left_out

    def after_answer(self) -> str:
        """What the template writes after an answer; empty where it does not tell."""
        messages = [
            {"role": "user", "content": "Is it?"},
            {"role": "assistant", "content": "It is"},
        ]
        try:
            whole = self._template.render(messages)
            begun = self._template.render(messages, continue_final_message=True)
        except ChatError:
            return ""
        return whole.removeprefix(begun) if whole.startswith(begun) else ""

    def _render(self, messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """As lm-eval's own: without a prompt for an answer, the last message is continued."""
        end = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
        }
        self._made += 1
        try:
            return self._template.render(messages, **end)
        except TemplateRefusal:
            others = [message for message in messages if message["role"] != "system"]
            # A task's description, which lm-eval puts there, may go, as in lm-eval; but not what
            # the suite says.
            if self._chat.system or len(others) == len(messages):
                raise
            text = self._template.render(others, **end)
            self._left_out += 1
            return text
