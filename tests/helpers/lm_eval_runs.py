"""Tasks run by lm-eval itself, on a model or on answers that depend on nothing but the request."""

from __future__ import annotations

import hashlib
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import lm_eval.evaluator
import pytest
import torch
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2MoeConfig, Qwen2MoeForCausalLM

from mbench.core.evaluation import Evaluation
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.prepared_task import BuiltTask, PreparedTask
from mbench.evaluate.lm_eval.quiet import quiet

VOCABULARY = 600
WORDS = (
    "4",
    "12",
    "#### 12",
    "so it is 12.",
    "Yes",
    "no",
    " the  sea ",
    "(B)",
    "",
    "The answer is 4",
)


def write(path: Path, text: str) -> None:
    path.write_text(textwrap.dedent(text))


def toy_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that knows the words of these texts."""
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<end>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokens.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<end>", pad_token="<end>")


def toy_model(seed: int = 0, **settings: Any) -> Qwen2MoeForCausalLM:
    torch.manual_seed(seed)
    config = Qwen2MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=8,
        num_experts_per_tok=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
        **settings,
    )
    return Qwen2MoeForCausalLM(config).eval()


def ending(model: Qwen2MoeForCausalLM, tokenizer: Any) -> Qwen2MoeForCausalLM:
    """The model with the end of the text likely, so that some answers end within the limit."""
    with torch.no_grad():
        model.lm_head.weight[len(tokenizer) :] = 0
        model.lm_head.weight[tokenizer.eos_token_id] *= 3
    return model


def wrapped(
    model: Any,
    tokenizer: Any,
    max_length: int = 512,
    dtype: str | None = "float32",
    batch_size: int = 4,
) -> HFLM:
    return HFLM(
        pretrained=model,
        tokenizer=tokenizer,
        batch_size=batch_size,
        max_length=max_length,
        softmax_dtype=dtype,
    )


def stock(
    answers: LM,
    folder: Path,
    spec: LmEvalTask,
    working_directory: Path,
    gen_kwargs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """lm-eval's own command, from the directory in which it finds the data."""
    chat: dict[str, Any] = {}
    if spec.chat is not None:
        chat["apply_chat_template"] = True
        chat["system_instruction"] = spec.chat.system
        if spec.chat.multiturn is not None:
            chat["fewshot_as_multiturn"] = spec.chat.multiturn
    with quiet(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(working_directory)
        # What it says of the machine takes a second, and a subprocess.
        for report in ("add_env_info", "add_tokenizer_info", "get_git_commit_hash"):
            patch.setattr(lm_eval.evaluator, report, lambda *_: None)
        return lm_eval.simple_evaluate(
            answers,
            tasks=[spec.task],
            limit=spec.limit,
            num_fewshot=spec.num_fewshot,
            gen_kwargs=gen_kwargs,
            task_manager=TaskManager(include_path=[str(folder)], include_defaults=False),
            bootstrap_iters=0,
            **chat,
        )


def number(*parts: object) -> int:
    return int(hashlib.sha256(repr(parts).encode()).hexdigest()[:8], 16)


def answer(kind: str, arguments: tuple[Any, ...], repeat: int) -> Any:
    """What a model might say to a request, and says to an equal one again."""
    drawn = number(kind, arguments[0], str(arguments[1:])[:200], repeat)
    if kind == "generate_until":
        return WORDS[drawn % len(WORDS)]
    loss = -1.0 - drawn % 7 - (drawn % 1000) / 1000
    return loss if kind == "loglikelihood_rolling" else (loss, drawn % 2 == 0)


class MadeUp(LM):
    """Gives these answers to lm-eval."""

    def _all(self, kind: str, requests: list[Any]) -> list[Any]:
        seen: Counter[int] = Counter()
        found = []
        for request in requests:
            repeat = seen[id(request)] if kind == "generate_until" else 0
            found.append(answer(kind, request.args, repeat))
            seen[id(request)] += 1
        return found

    def loglikelihood(self, requests, **_):
        return self._all("loglikelihood", requests)

    def loglikelihood_rolling(self, requests, **_):
        return self._all("loglikelihood_rolling", requests)

    def generate_until(self, requests, **_):
        return self._all("generate_until", requests)


class MadeUpRequests:
    """Gives the same answers to a prepared task."""

    scoring, tokens, longest, prompts = "reference", 1, 1, ()

    def __init__(self, built: BuiltTask) -> None:
        self.rolling = built.figures.rolling
        self.instances = [instance for item in built.items for instance in item.instances]

    def answer(self, *_: Any) -> list[tuple[Any, ...]]:
        found = []
        for each in self.instances:
            kind = each.request_type
            kind = "loglikelihood" if kind == "multiple_choice" else kind
            repeats = range(each.repeats)
            drawn = kind == "generate_until"
            found.append(tuple(answer(kind, each.args, k if drawn else 0) for k in repeats))
        return found

    def columns(self, responses: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
        if not self.rolling:
            return {}
        losses = {"nll": [-each[0] for each in responses], "tokens": [1] * len(responses)}
        return {"document": list(range(len(responses))), **losses}


def with_made_up_answers(built: BuiltTask, model: Any) -> Evaluation:
    return PreparedTask(built, MadeUpRequests(built)).evaluate(model)


def figures_of(results: dict[str, Any], name: str) -> dict[str, Any]:
    """lm-eval's figures of a task or group, as `metric,filter`."""
    return {
        key: value
        for key, value in results["results"][name].items()
        if "," in key and "_stderr" not in key
    }
