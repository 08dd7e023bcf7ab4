"""Prompts in a model's chat template are lm-eval's own, letter by letter and token by token."""

from __future__ import annotations

import datetime
import json

import pytest
import transformers.utils.chat_template_utils as library
from lm_eval.models.huggingface import HFLM
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.chat_templates import A_DAY, BOS, NO_SYSTEM, OWN_SYSTEM, THINKING, TODAY, TURNS
from helpers.lm_eval_runs import stock, write
from helpers.stand_ins import TOKENIZER
from mbench.core.chat import ChatSpec
from mbench.core.errors import TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.encoding import encode
from mbench.evaluate.lm_eval.looks import looks_at_requests
from mbench.evaluate.lm_eval.prepared_task import build, prepare

DAY = datetime.date(2026, 3, 5)
TEMPLATES = {
    "turns": TURNS,
    "bos": BOS,
    "own system": OWN_SYSTEM,
    "no system": NO_SYSTEM,
    "thinking": THINKING,
    "today": TODAY,
    "a day": A_DAY,
}
ITEMS = [
    {"q": f"The {who} sat on the ", "choices": [f"mat of {who}", " sofa", "é 日"], "answer": at % 3}
    for at, who in enumerate(["cat", "dog", "owl", "fox", "hen"])
]
CHOICE = """
    task: choice
    dataset_path: json
    dataset_kwargs: {data_files: {test: data.jsonl, train: few.jsonl}}
    output_type: multiple_choice
    test_split: test
    fewshot_split: train
    description: "Choose. "
    doc_to_text: "Q: {{q}}\\nA:"
    doc_to_choice: choices
    doc_to_target: answer
    metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_mutual_info}]
"""
TASKS = {
    "choice": CHOICE,
    "led": """
        include: choice.yaml
        task: led
        description: ""
        gen_prefix: "It is"
    """,
    "blank": """
        include: choice.yaml
        task: blank
        doc_to_text: answer
        doc_to_choice: "{{[q ~ 'mat', q ~ 'sofa', q ~ 'sea']}}"
        doc_to_target: "and slept."
        target_delimiter: " "
        metric_list: [{metric: acc}]
    """,
    "last": """
        include: choice.yaml
        task: last
        output_type: loglikelihood
        description: "About {{q}}\\n\\n"
        doc_to_choice: null
        doc_to_target: "{{choices[answer]}}"
        metric_list: [{metric: acc}]
    """,
    "text": """
        include: last.yaml
        task: text
        output_type: generate_until
        metric_list: [{metric: exact_match}]
        generation_kwargs: {until: ["\\n", "on"], max_gen_toks: 6}
    """,
    "begun": """
        include: text.yaml
        task: begun
        gen_prefix: "It is "
    """,
    "all": """
        group: all
        task: [choice, blank]
        aggregate_metric_list: [{metric: acc}]
    """,
}


class Fifth(datetime.datetime):
    """A clock that stands still on `DAY`."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 3, 5)


class Seen(HFLM):
    """lm-eval's model, which remembers what it is asked, and does not answer."""

    def loglikelihood(self, requests, **_):
        self.texts = [request.args for request in requests]
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests, **_):
        self.tokens = [([*context, *end][:-1], end) for _, context, end in requests]
        return [(0.0, False)] * len(requests)

    def generate_until(self, requests, **_):
        self.texts = [request.args for request in requests]
        encoded = [self.tok_batch_encode([text])[0][0].tolist() for text, _ in self.texts]
        self.tokens = [len(tokens) for tokens in encoded]
        return [""] * len(requests)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(TOKENIZER, dtype="float32").eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tasks")
    (place / "data.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    (place / "few.jsonl").write_text("\n".join(map(json.dumps, ITEMS[2:])))
    for name, text in TASKS.items():
        write(place / f"{name}.yaml", text)
    return place


def tokenizer_with(template, begins=False):
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER, chat_template=template)
    if begins:
        bos = (tokenizer.bos_token, tokenizer.bos_token_id)
        processor = TemplateProcessing(single=f"{bos[0]} $A", special_tokens=[bos])
        tokenizer.backend_tokenizer.post_processor = processor
    return tokenizer


def requests_of(built, tokenizer):
    """Texts and tokens, as `Seen` has them."""
    instances = [instance for item in built.items for instance in item.instances]
    texts = [instance.args for instance in instances]
    if instances[0].request_type == "generate_until":
        return texts, [prompt.tokens for prompt in built.tokenised(tokenizer, 4096).prompts]
    encoded = encode(instances, tokenizer, 4096)
    return texts, [(request.tokens, request.targets) for request in encoded.requests]


@pytest.mark.parametrize(
    ("template", "begins"),
    [*((name, False) for name in TEMPLATES), ("turns", True), ("bos", True)],
)
@pytest.mark.parametrize("task", list(TASKS))
def test_requests_are_lm_evals_own(model, folder, monkeypatch, task, template, begins):
    monkeypatch.setattr(library, "datetime", Fifth)
    tokenizer = tokenizer_with(TEMPLATES[template], begins)
    options = {"enable_thinking": False} if template == "thinking" else {}
    theirs = {**options, **({"date_string": "05 Mar 2026"} if template == "a day" else {})}
    for system, multiturn, shots in ((None, None, 2), ("Be kind.", True, 0), (None, False, 2)):
        if template == "no system":
            system = None
        chat = ChatSpec(system=system, multiturn=multiturn, options=options, date=DAY)
        spec = LmEvalTask(task=task, num_fewshot=shots, chat=chat)
        seen = Seen(
            model, tokenizer=tokenizer, batch_size=1, max_length=4096, chat_template_args=theirs
        )
        stock(seen, folder, spec, folder)
        texts, tokens = requests_of(build(task, spec, [folder], (), tokenizer), tokenizer)
        assert texts == seen.texts
        assert tokens == seen.tokens


@pytest.mark.parametrize("template", ["bos", "no system"])
def test_generated_answers_are_lm_evals_own(model, folder, template):
    tokenizer = tokenizer_with(TEMPLATES[template], begins=True)
    spec = LmEvalTask(task="begun", num_fewshot=1, chat=ChatSpec())
    answers = HFLM(model, tokenizer=tokenizer, batch_size=1, max_length=256)
    expected = stock(answers, folder, spec, folder)["samples"]["begun"]
    prepared = prepare("begun", spec, [folder], tokenizer, max_length=256)
    items = prepared.evaluate(model, batch_tokens=1).items
    assert list(items["answer"]) == [sample["resps"][0][0] for sample in expected]
    prompts = [each.prompt for each in prepared.texts]
    assert prompts == [sample["arguments"][0][0] for sample in expected]


@pytest.mark.parametrize(
    ("task", "changes", "template", "words"),
    [
        ("choice", {"options": {"enable_thinking": True}}, THINKING, "leaves no room for thoughts"),
        ("choice", {"system": "Be kind."}, NO_SYSTEM, "System role not supported"),
        ("text", {}, TODAY, "today's date"),
        ("text", {}, None, "has no chat template"),
        ("text", {"multiturn": False}, "{{ 1 / 0 }}", "ZeroDivisionError"),
        ("whole", {}, TURNS, "scores whole texts, which no chat template applies to"),
    ],
)
def test_what_is_no_prompt_in_the_template_is_refused(folder, task, changes, template, words):
    rolling = "include: last.yaml\ntask: whole\noutput_type: loglikelihood_rolling\n"
    (folder / "whole.yaml").write_text(rolling + "metric_list: [{metric: word_perplexity}]\n")
    spec = LmEvalTask(task=task, chat=ChatSpec(**changes))
    with pytest.raises(TaskError, match=words) as refusal:
        build(task, spec, [folder], (), tokenizer_with(template))
    assert "\n" not in str(refusal.value)
    without = spec.model_copy(update={"chat": ChatSpec(template=False)})
    assert build(task, without, [folder], (), tokenizer_with(template)).chat is None


def looks(folder, template, task="choice", positions=512, **chat):
    tokenizer = tokenizer_with(template, begins=True)
    spec = LmEvalTask(task=task, num_fewshot=1, chat=ChatSpec(**chat))
    prepared = build(task, spec, [folder], (), tokenizer).tokenised(tokenizer, positions)
    found = looks_at_requests(prepared, tokenizer, {tokenizer.eos_token_id})
    return {(look.fact, look.level): look.words for look in found}


def test_where_bos_stands_is_told(folder):
    assert looks(folder, TURNS)["BOS", "fine"] == "first in 5 of 5 prompts"
    assert looks(folder, BOS)["BOS", "fine"] == "first in 5 of 5 prompts"
    # As nothing but the very first characters tell lm-eval that BOS is there already.
    twice = looks(folder, "{{ bos_token }}" + BOS)["BOS", "refused"]
    assert twice == "stands twice in 5 of 5 prompts: in the template, and before it"


def test_a_description_that_goes_is_told(folder):
    words = looks(folder, NO_SYSTEM)["description", "note"]
    assert words == "left out of 5 prompts, as in lm-eval: the template takes no system message"
    assert ("description", "note") not in looks(folder, TURNS)


def test_whether_answers_end_with_a_turn_is_told(folder):
    one_line = TURNS.replace("<|im_end|>\\n", "<|im_end|>")
    words = looks(folder, one_line, "begun")["end of a turn", "note"]
    assert words.startswith("'<|im_end|>' in the chat template, which is no token that ends")
    ends = looks(folder, TURNS.replace("<|im_end|>", "<|endoftext|>"), "begun")
    assert ends["end of a turn", "fine"] == "'<|endoftext|>\\n', which ends an answer"
    # The task ends answers at a line's end; and choices are not generated.
    assert ("end of a turn", "note") not in looks(folder, TURNS, "begun")
    assert ("end of a turn", "note") not in looks(folder, one_line, "choice")


def test_a_question_is_measured_with_its_template(folder):
    full = looks(folder, TURNS)["prompts", "fine"]
    longest = int(full.split(" of up to ")[1].split()[0])
    assert full.endswith("tokens, in the model's chat template")
    assert ("prompts", "refused") in looks(folder, TURNS, positions=longest // 3)
