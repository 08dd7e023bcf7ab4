"""What is to be known of a task before it is answered: its items, and its requests on a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lm_eval.api.task import ConfigurableTask

from mbench.core.admission import Level
from mbench.core.errors import TaskError
from mbench.evaluate.lm_eval.chat_prompts import ChatPrompts
from mbench.evaluate.lm_eval.encoding import prompt_tokens
from mbench.evaluate.lm_eval.examples import source_of_examples
from mbench.evaluate.lm_eval.generation_options import Options, options_of
from mbench.evaluate.lm_eval.items import Item, Prompt
from mbench.evaluate.lm_eval.prepared_task import BuiltTask, PreparedTask
from mbench.evaluate.lm_eval.quiet import quiet
from mbench.evaluate.lm_eval.sandbox import confined

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from transformers import PreTrainedTokenizerBase

MANY = 0.5
"""Share of items from which on a fault decides the figure, so that it measures something else."""


@dataclass(frozen=True)
class Look:
    """One fact of a task."""

    fact: str
    words: str
    level: Level = "fine"


def looks_at_items(built: BuiltTask, metric: str, limit: int | None) -> Iterator[Look]:
    """What holds on every model; `metric` and `limit` as the suite says."""
    with quiet(), confined():
        yield _metric(built, metric)
        yield from _figure(built)
        yield from _documents(built, limit)
        yield from _examples(built)
        yield from _choices(built)
        yield from _answers(built)


def looks_at_requests(
    prepared: PreparedTask, tokenizer: PreTrainedTokenizerBase, ends: Collection[int] = ()
) -> Iterator[Look]:
    """What one tokenizer and the positions of one model make of the prompts.

    `ends` are the tokens that end what the model generates.
    """
    built, prompts = prepared.built, prepared.prompts
    if built.figures.rolling:
        yield Look("windows", f"of up to {prepared.longest} tokens, each text by itself")
        return
    longest = max(prompt.tokens for prompt in prompts)
    form = "as plain text" if built.chat is None else "in the model's chat template"
    yield Look("prompts", f"{len(prompts)} of up to {longest} tokens, {form}")
    with quiet(), confined():
        yield from _cut(built, prompts, tokenizer)
    spanned = sum(prompt.spanned for prompt in prompts)
    if spanned:
        words = (
            f"begins in the prompt and ends in the choice of {spanned} of {len(prompts)} requests;"
            " as in lm-eval, as many tokens as the prompt alone has are not scored"
        )
        yield Look("token", words, "note")
    if built.chat is not None:
        yield from _chat(built.items, built.chat, tokenizer)
        if built.items[0].instances[0].request_type == "generate_until":
            yield from _turn(built, built.chat, tokenizer, ends)
    elif getattr(tokenizer, "chat_template", None):
        words = "the tokenizer has one; it is not applied, as in lm-eval by default"
        yield Look("chat template", words, "note")


def _chat(
    items: Sequence[Item], chat: ChatPrompts, tokenizer: PreTrainedTokenizerBase
) -> Iterator[Look]:
    if chat.without_system:
        words = (
            f"left out of {chat.without_system} prompts, as in lm-eval: the template takes no"
            " system message"
        )
        yield Look("description", words, "note")
    bos = tokenizer.bos_token_id
    texts = [item.instances[0].args[0] for item in items]
    begin = [tokens[:2] for tokens in prompt_tokens(tokenizer, texts)]
    twice = sum(bos is not None and tokens == [bos, bos] for tokens in begin)
    if twice:
        words = f"stands twice in {twice} of {len(items)} prompts: in the template, and before it"
        yield Look("BOS", words, "refused")
    else:
        first = sum(bos is not None and tokens[:1] == [bos] for tokens in begin)
        yield Look("BOS", f"first in {first or 'none'} of {len(items)} prompts")


def _turn(
    built: BuiltTask, chat: ChatPrompts, tokenizer: PreTrainedTokenizerBase, ends: Collection[int]
) -> Iterator[Look]:
    """Whether answers end where the template ends a turn; otherwise the model talks to itself."""
    after = chat.after_answer()
    tokens = tokenizer.encode(after, add_special_tokens=False)
    instances = (instance for item in built.items for instance in item.instances)
    untils = [options_of(built.name, instance).until for instance in instances]
    if tokens[:1] and tokens[0] in ends:
        yield Look("end of a turn", f"{after!r}, which ends an answer")
    elif not all(any(text and text in after for text in until) for until in untils):
        words = (
            f"{after!r} in the chat template, which is no token that ends what the model generates:"
            " answers go on until the task's own text, or to their limit"
        )
        yield Look("end of a turn", words, "note")


def _metric(built: BuiltTask, metric: str) -> Look:
    try:
        built.figures.refuse_unless_kept(metric)
    except TaskError as error:
        return Look("metric", str(error), "refused")
    return Look("metric", f"{metric} (it has {', '.join(built.figures.names)})")


def _figure(built: BuiltTask) -> Iterator[Look]:
    count = len(built.tasks)
    if count == 1:
        return
    if built.group is None or not built.group.aggregate_metric_list:
        words = f"mean over all items of {count} tasks; lm-eval gives none of the whole"
        yield Look("figure", words, "note")
    elif built.figures.weights is None:
        yield Look("figure", f"mean over all items of {count} tasks, as the group says")
    else:
        yield Look("figure", f"mean of {count} tasks that do not count by size, as the group says")


def _documents(built: BuiltTask, limit: int | None) -> Iterator[Look]:
    sizes = Counter(item.subtask for item in built.items)
    yield Look("items", f"{len(built.items)}")
    for name, task in built.tasks.items():
        if limit is not None and len(task.eval_docs) < limit:
            yield Look("items", f"limit is {limit}, but {name} has {sizes[name]}", "note")
    seen = Counter((item.subtask, item.identity.split(":")[-3]) for item in built.items)
    copies = sum(count - 1 for count in seen.values())
    if copies:
        words = f"{copies} of {len(built.items)} are copies of others"
        yield Look("documents", words, "note")


def _examples(built: BuiltTask) -> Iterator[Look]:
    for name, task in built.tasks.items():
        drawn = built.examples[name]
        if not drawn:
            continue
        own = [item for item in built.items if item.subtask == name]
        leaks = sum(item.doc in examples for item, examples in zip(own, drawn, strict=False))
        config = task.config
        evaluated = config.test_split or config.validation_split
        same = config.fewshot_config.split == evaluated
        words = f"{len(drawn[0])} of {source_of_examples(task)}"
        if leaks:
            yield Look(
                "examples",
                f"{words}: {leaks} of {len(own)} items are among their own examples, with their"
                " answers" + ("; name another fewshot_split" if same else ""),
                "refused" if same else "note",
            )
        elif same:
            yield Look("examples", f"{words}, which is the one that is evaluated", "note")
        else:
            yield Look("examples", words, "note" if config.fewshot_config.split is None else "fine")


def _choices(built: BuiltTask) -> Iterator[Look]:
    asked = [item for item in built.items if built.tasks[item.subtask].OUTPUT_TYPE == _CHOICE]
    if not asked:
        return
    empty = same = wrong = 0
    for item in asked:
        task = built.tasks[item.subtask]
        choices = task.doc_to_choice(item.doc)
        empty += not all(choices)
        same += len(set(choices)) < len(choices)
        wrong += not _has_gold(task, item, choices)
    if empty:
        words = f"one of {empty} of {len(asked)} items has no text, so that nothing is scored"
        yield Look("choices", words, "refused")
    if same:
        words = f"two read the same in {same} of {len(asked)} items: the first of them is chosen"
        yield Look("choices", words, _level(same, len(asked)))
    if wrong:
        words = f"none of its choices in {wrong} of {len(asked)} items, which nobody gets right"
        yield Look("right answer", words, _level(wrong, len(asked)))


_CHOICE = "multiple_choice"


def _has_gold(task: Task, item: Item, choices: Sequence[str]) -> bool:
    gold: Any = task.doc_to_text(item.doc) if task.multiple_input else task.doc_to_target(item.doc)
    for each in gold if isinstance(gold, list) else [gold]:
        if each not in choices and not (isinstance(each, int) and 0 <= each < len(choices)):
            return False
    return bool(gold != [])


def _answers(built: BuiltTask) -> Iterator[Look]:
    instances = [instance for item in built.items for instance in item.instances]
    repeats = max(instance.repeats or 1 for instance in instances)
    if instances[0].request_type != "generate_until":
        if repeats > 1:
            yield Look("repeats", f"{repeats} equal ones: nothing is drawn", "note")
        return
    for options in dict.fromkeys(options_of(built.name, each) for each in instances):
        yield _answer(options, repeats, built.seed or 0)


def _answer(options: Options, repeats: int, seed: int) -> Look:
    words = f"up to {options.limit} tokens"
    if not options.limit_given:
        words += " (lm-eval's default: the task names none; set max_gen_toks)"
    if options.sampled:
        times = f"{repeats} times " if repeats > 1 else ""
        drawing = ", ".join(f"{option} {value}" for option, value in options.drawing)
        words += f", drawn {times}with seed {seed} ({drawing})"
    elif repeats > 1:
        words += f", the most likely ones; {repeats} equal repeats"
    if options.useless:
        words += f"; {', '.join(options.useless)} without effect: do_sample is not true"
    if options.alone:
        words += "; one at a time, since its options would see the padding of a batch"
    if not options.until:
        words += ", with no text that ends it earlier"
    wasted = repeats > 1 and not options.sampled
    noted = not options.until or not options.limit_given or wasted or options.useless
    return Look("answer", words, "note" if noted else "fine")


def _cut(
    built: BuiltTask, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase
) -> Iterator[Look]:
    owners = [(item, at) for item in built.items for at in range(len(item.instances))]
    cut = [
        (item, at, prompt) for (item, at), prompt in zip(owners, prompts, strict=True) if prompt.cut
    ]
    if not cut:
        return
    most = max(prompt.cut for _, _, prompt in cut)
    words = f"{len(cut)} of {len(prompts)} are cut on the left, by up to {most} tokens"
    gone = sum(prompt.kept <= 1 for _, _, prompt in cut)
    if gone:
        yield Look("prompts", f"{words}; of {gone} nothing is left", "refused")
        return
    hurt = sum(
        prompt.kept < _own_tokens(built.tasks[item.subtask], item, at, tokenizer, built.chat)
        for item, at, prompt in cut
    )
    if hurt:
        words += f"; {hurt} lose part of the item's own question"
    yield Look("prompts", words, _level(hurt, len(prompts)))


def _own_tokens(
    task: Task, item: Item, at: int, tokenizer: PreTrainedTokenizerBase, chat: ChatPrompts | None
) -> float:
    """Tokens of an item's prompt without examples."""
    if not isinstance(task, ConfigurableTask):
        return float("inf")
    options = {} if chat is None else chat.options
    prefix = task.doc_to_prefix(item.doc)
    own = task.fewshot_context(item.doc, num_fewshot=0, gen_prefix=prefix, **options)
    text = own[min(at, len(own) - 1)] if isinstance(own, list) else own
    return len(prompt_tokens(tokenizer, [text])[0])


def _level(count: int, of: int) -> Level:
    return "refused" if count >= MANY * of else "note"
