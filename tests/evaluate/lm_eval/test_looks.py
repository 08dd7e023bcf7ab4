"""What a look at a task finds: metrics, examples, choices, right answers, prompts that are cut."""

from __future__ import annotations

import json

import pytest

from helpers.lm_eval_runs import toy_tokenizer, write
from mbench.core.errors import TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.looks import looks_at_items, looks_at_requests
from mbench.evaluate.lm_eval.prepared_task import build

ITEMS = [
    {"q": f"the cat sat on the {thing}", "choices": ["mat", "dog", thing], "answer": at % 3}
    for at, thing in enumerate(["sofa", "river", "moon", "cup", "tree", "hat"])
]
CHOICE = """
    task: choice
    dataset_path: json
    dataset_kwargs: {data_files: {test: data.jsonl, train: few.jsonl}}
    output_type: multiple_choice
    test_split: test
    fewshot_split: train
    doc_to_text: "Q: {{q}}\\nA:"
    doc_to_choice: choices
    doc_to_target: answer
    metric_list: [{metric: acc}, {metric: acc_norm}]
"""
TEXT = """
    include: choice.yaml
    task: text
    output_type: generate_until
    doc_to_choice: null
    doc_to_target: "{{choices[answer]}}"
    metric_list: [{metric: exact_match}]
    generation_kwargs: {until: ["."], max_gen_toks: 8}
"""


@pytest.fixture(scope="module")
def tokenizer():
    return toy_tokenizer([part for item in ITEMS for part in (item["q"], *item["choices"])])


@pytest.fixture
def folder(tmp_path):
    documents(tmp_path, ITEMS)
    (tmp_path / "few.jsonl").write_text("\n".join(map(json.dumps, ITEMS[:2])))
    write(tmp_path / "choice.yaml", CHOICE)
    write(tmp_path / "text.yaml", TEXT)
    return tmp_path


def documents(folder, items):
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, items)))


def changed(folder, base, lines):
    (folder / "it.yaml").write_text(f"include: {base}.yaml\ntask: it\n{lines}\n")


def found(folder, task="it", metric=None, **spec):
    built = build(task, LmEvalTask(**spec), [folder])
    metric = metric or built.figures.names[0]
    return {
        (look.fact, look.level): look.words
        for look in looks_at_items(built, metric, spec.get("limit"))
    }


def found_on(folder, tokenizer, positions, task="it", **spec):
    built = build(task, LmEvalTask(**spec), [folder])
    looks = looks_at_requests(built.tokenised(tokenizer, positions), tokenizer)
    return {(look.fact, look.level): look.words for look in looks}


@pytest.mark.parametrize(
    ("base", "lines", "metric", "words"),
    [
        (
            "text",
            "filter_list: [{name: strict, filter: [{function: take_first}]},"
            " {name: loose, filter: [{function: lowercase}, {function: take_first}]}]",
            "acc",
            "unknown metric 'acc' (valid: exact_match,loose, exact_match,strict)",
        ),
        ("choice", "", "acc_nrm", "did you mean 'acc_norm'"),
        ("choice", "metric_list: [{metric: acc}, {metric: f1}]", "f1", "no mean over items"),
        ("choice", "metric_list: [{metric: acc}, {metric: brier_score}]", "brier_score", "no mean"),
        ("choice", "metric_list: [{metric: acc}, {metric: mcc}]", "mcc", "(valid: acc)"),
        (
            "text",
            "metric_list: [{metric: exact_match}, {metric: exact_match, higher_is_better: false,"
            " aggregation: mean}]",
            "exact_match",
            "better when lower",
        ),
        (
            "text",
            "output_type: loglikelihood_rolling\ndoc_to_text: ''\nfewshot_split: null\n"
            "generation_kwargs: null\nmetric_list: [{metric: word_perplexity}]",
            "word_perplexity",
            "bits_per_byte, mean_nll, perplexity",
        ),
        ("text", "metric_list: [{metric: exact_match}, {metric: bleu}]", "bleu", "no mean"),
    ],
)
def test_a_metric_that_cannot_be_says_why_and_which_can(base, lines, metric, words, folder):
    changed(folder, base, lines)
    try:
        text = found(folder, metric=metric)["metric", "refused"]
    except TaskError as error:
        text = str(error)
    assert words in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("base", "lines", "words"),
    [
        ("text", "metric_list: [{metric: rouge}]", "'rouge' is none of lm-eval's own"),
        ("text", "metric_list: [{metric: exact_match, hf_evaluate: true}]", "fetched as code"),
        ("choice", "unsafe_code: true", "executes generated code"),
        ("choice", "doc_to_image: q", "images or audio"),
        ("choice", "apply_chat_template: true", "an option of lm-eval's command line"),
        (
            "choice",
            "num_fewshot: 3",
            "into each prompt, but the split 'train' has 2",
        ),
        ("choice", "num_fewshot: 6\nfewshot_split: test", "has 6, the item itself among them"),
        ("choice", "num_fewshot: 1\nfewshot_split: dev", "no split or field 'dev'"),
        ("choice", "test_split: dev", "no split or field 'dev'"),
        ("text", "filter_list: [{name: a, filter: [{function: take_first_k, k: 3}]}]", "scored"),
        (
            "text",
            "filter_list: [{name: a, filter: [{function: map}, {function: take_first}]}]",
            "cannot be scored: TypeError",
        ),
        (
            "text",
            "filter_list: [{name: a, filter: [{function: regexx}]}]",
            "d: Unknown filter",
        ),
        ("choice", "metric_list: [{metric: likelihood}]", "no number but of type tuple"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_is_loaded(base, lines, words, folder):
    changed(folder, base, lines)
    with pytest.raises(TaskError) as caught:
        found(folder)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_data_without_items_is_refused(folder):
    changed(
        folder, "choice", "fewshot_split: null\ndataset_kwargs: {data_files: {test: data.jsonl}}"
    )
    for text in ("", "\n"):
        (folder / "data.jsonl").write_text(text)
        with pytest.raises(TaskError, match="its data has no items"):
            found(folder)


def test_examples_limits_and_copies(folder):
    changed(folder, "choice", "num_fewshot: 2")
    # Two of the six are the examples, too.
    assert found(folder)["examples", "note"].startswith("2 of the split 'train': 2 of 6 items are")
    changed(folder, "choice", "num_fewshot: 1\nfewshot_split: test")
    assert "which is the one that is evaluated" in found(folder)["examples", "note"]
    changed(
        folder,
        "choice",
        "num_fewshot: 5\ntest_split: null\nvalidation_split: test\nfewshot_split: test",
    )
    assert "are among their own examples" in found(folder)["examples", "refused"]
    changed(folder, "choice", "num_fewshot: 1\nfewshot_split: null\ntraining_split: train")
    assert "the task names none" in found(folder)["examples", "note"]
    changed(folder, "choice", "")
    assert found(folder, limit=7)["items", "note"] == "limit is 7, but it has 6"
    assert ("items", "note") not in found(folder, limit=6)
    documents(folder, [*ITEMS, *ITEMS[:2]])
    assert found(folder)["documents", "note"] == "2 of 8 are copies of others"


def test_choices_and_right_answers(folder):
    changed(folder, "choice", "")
    assert {fact for fact, level in found(folder) if level != "fine"} == set()
    documents(folder, [*ITEMS, {"q": "x", "choices": ["a", "a"], "answer": 0}])
    assert found(folder)["choices", "note"].startswith("two read the same in 1 of 7")
    documents(folder, [*ITEMS, {"q": "x", "choices": ["a", ""], "answer": 0}])
    assert "1 of 7 items has no text" in found(folder)["choices", "refused"]
    documents(folder, [*ITEMS, {"q": "x", "choices": ["a", "b"], "answer": 2}])
    assert "in 1 of 7 items, which nobody" in found(folder)["right answer", "note"]
    documents(folder, [{**item, "answer": -1} for item in ITEMS])
    assert "in 6 of 6 items" in found(folder)["right answer", "refused"]


def test_answers_that_are_drawn_repeated_or_never_end(folder):
    assert found(folder, "text")["answer", "fine"] == "up to 8 tokens"
    changed(folder, "text", "repeats: 3")
    assert "3 equal repeats" in found(folder)["answer", "note"]
    changed(folder, "text", "generation_kwargs: {until: [], max_gen_toks: 8}")
    assert "no text that ends it" in found(folder)["answer", "note"]
    drawn = "generation_kwargs: {until: ['.'], do_sample: true, temperature: 1.0}\nrepeats: 3"
    changed(folder, "text", drawn)
    assert found(folder, seed=4, max_gen_toks=9)["answer", "fine"] == (
        "up to 9 tokens, drawn 3 times with seed 4 (temperature 1.0, top_k 50)"
    )
    hot = {"temperature": 0.6, "top_p": 0.95, "top_k": 0}
    words = found(folder, max_gen_toks=9, generation=hot)["answer", "fine"]
    assert words.endswith("with seed 0 (temperature 0.6, top_k 0, top_p 0.95)")
    cold = {"do_sample": False, "temperature": 0.7, "top_p": 0.5}
    greedy = found(folder, max_gen_toks=9, generation=cold)["answer", "note"]
    assert greedy.endswith("; temperature, top_p without effect: do_sample is not true")


def test_a_limit_that_nobody_set_is_told(folder):
    """lm-eval's 256 tokens; a limit of the task, or of the suite, under any of its names."""
    default = "up to 256 tokens (lm-eval's default: the task names none; set max_gen_toks)"
    changed(folder, "text", "generation_kwargs: {until: ['.']}")
    assert found(folder)["answer", "note"] == default
    assert found(folder, max_gen_toks=256)["answer", "fine"] == "up to 256 tokens"
    changed(folder, "text", "generation_kwargs: {until: ['.'], max_new_tokens: 256}")
    assert found(folder)["answer", "fine"] == "up to 256 tokens"
    assert found(folder, max_gen_toks=20)["answer", "fine"] == "up to 20 tokens"


def test_prompts_that_are_cut_are_counted_and_refused_where_the_question_is_lost(folder, tokenizer):
    changed(folder, "choice", "num_fewshot: 2")
    built = build("it", LmEvalTask(), [folder])
    prompts = built.tokenised(tokenizer, 512).prompts
    assert not any(prompt.cut for prompt in prompts)
    whole = found_on(folder, tokenizer, 512)
    assert {level for _, level in whole} == {"fine"}
    own = max(prompt.tokens for prompt in _zero_shot(folder, tokenizer))
    few = found_on(folder, tokenizer, own + 12)["prompts", "note"]
    assert few.startswith(f"{len(prompts)} of {len(prompts)} are cut on the left, by up to")
    assert "lose part of the item's own question" not in few
    assert "lose part of" in found_on(folder, tokenizer, 8)["prompts", "refused"]
    with pytest.raises(TaskError, match="must have 1 to 1"):
        found_on(folder, tokenizer, 1)
    changed(folder, "text", "")
    with pytest.raises(TaskError, match="no room for a prompt"):
        found_on(folder, tokenizer, 8)
    assert "of 6 nothing is left" in found_on(folder, tokenizer, 9)["prompts", "refused"]


def _zero_shot(folder, tokenizer):
    return build("choice", LmEvalTask(), [folder]).tokenised(tokenizer, 512).prompts


def test_tokens_that_span_prompt_and_choice_are_counted(folder):
    tokenizer = toy_tokenizer(["abab " * 50])
    documents(folder, [{"q": "a", "choices": ["bb", "c"], "answer": 0}])
    changed(folder, "choice", 'doc_to_text: "xa"\ntarget_delimiter: ""')
    assert tokenizer.encode("xab") != [*tokenizer.encode("xa"), *tokenizer.encode("b")]
    assert "of 1 of 2 requests" in found_on(folder, tokenizer, 64)["token", "note"]
    tokenizer.chat_template = "{{ messages }}"
    assert ("chat template", "note") in found_on(folder, tokenizer, 64)
