"""Drawn answers depend on the seed, the item and the repetition, and on nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from helpers.lm_eval_runs import ending, stock, toy_model, toy_tokenizer, wrapped, write
from mbench.core.batch_limit import BatchLimit
from mbench.core.errors import TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.prepared_task import prepare
from mbench.evaluate.lm_eval.sampling import Draws, stream

TASK = """
    task: drawn
    dataset_path: json
    dataset_kwargs: {data_files: {test: drawn.jsonl}}
    output_type: generate_until
    test_split: test
    doc_to_text: "{{q}}"
    doc_to_target: "{{q}}"
    repeats: 3
    generation_kwargs: {until: ["zzz"], do_sample: true, temperature: 1.0, max_gen_toks: 6}
    metric_list: [{metric: exact_match}]
"""
ITEMS = [{"q": f"the cat {'sat ' * at}"} for at in range(7)]


@pytest.fixture(scope="module")
def tokenizer():
    return toy_tokenizer([item["q"] for item in ITEMS])


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "drawn.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    write(tmp_path / "drawn.yaml", TASK)
    return tmp_path


def answers(folder, model, tokenizer, batch_tokens=8192, **spec):
    """Question -> its answers."""
    from mbench.evaluate.meter import Meter

    prepared = prepare("drawn", LmEvalTask(**spec), [folder], tokenizer, max_length=256)
    texts = prepared.requests.answer(model, BatchLimit(batch_tokens), Meter(prepared.tokens, None))
    questions = [item.doc["q"] for item in prepared.built.items]
    return dict(zip(questions, texts, strict=True))


def test_equal_for_every_batch_and_order_and_other_for_every_repetition(folder, model, tokenizer):
    first = answers(folder, model, tokenizer)
    assert all(len(set(texts)) == 3 for texts in first.values())
    torch.manual_seed(7)
    assert answers(folder, model, tokenizer, batch_tokens=1) == first
    assert answers(folder, model, tokenizer, batch_tokens=60) == first
    assert answers(folder, model, tokenizer, seed=0) == first
    few = answers(folder, model, tokenizer, limit=3)
    assert few == {question: first[question] for question in few}
    other = answers(folder, model, tokenizer, seed=1)
    assert all(other[question] != first[question] for question in first)


def test_tokens_are_drawn_as_often_as_they_are_likely():
    count, vocabulary = 40_000, 50
    likely = torch.softmax(torch.randn(vocabulary, generator=torch.manual_seed(0)) * 2, 0)
    likely[3] = 0
    draws = Draws([stream(0, "item", repeat) for repeat in range(count)])
    for _ in range(2):
        drawn = draws(likely.expand(count, -1), num_samples=1)
        found = np.bincount(drawn[:, 0].numpy(), minlength=vocabulary)
        assert found[3] == 0
        there = likely.numpy() > 0
        expected = likely.double().numpy()[there] * count / likely.double().sum().item()
        assert chisquare(found[there], expected).pvalue > 1e-3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("do_sample: true", "temperature above 0"),
        ("do_sample: maybe", "true or false"),
        ("do_sample: true, temperature: 1, num_beams: 2", "num_beams: 1"),
        ("max_length: 20", "write max_gen_toks"),
        ("max_gen_tokens: 20", "did you mean 'max_gen_toks'"),
        ("num_return_sequences: 2", "write repeats"),
        ("max_gen_toks: 0", "no token"),
        ("min_length: 20", "write min_new_tokens"),
        ("max_time: 2.0", "depend on the machine"),
        ("stop_strings: ['.']", "write until"),
        ("penalty_alpha: 0.6", "unknown option 'penalty_alpha'"),
        ("prompt_lookup_num_tokens: 3", "unknown option"),
        ("use_cache: false", "unknown option"),
    ],
)
def test_other_ways_to_generate_are_refused(options, words, folder, tokenizer):
    write(
        folder / "bad.yaml",
        f"include: drawn.yaml\ntask: bad\ngeneration_kwargs: {{until: ['.'], {options}}}\n",
    )
    with pytest.raises(TaskError, match=words):
        prepare("bad", LmEvalTask(), [folder], tokenizer, max_length=256)


@pytest.mark.parametrize(
    "asked",
    [
        {"do_sample": False, "repetition_penalty": 1.7},
        {"do_sample": False, "num_beams": 3, "length_penalty": 0.5},
        {"do_sample": False, "no_repeat_ngram_size": 1},
        {
            "do_sample": True,
            "temperature": 0.7,
            "top_p": 0.8,
            "top_k": 0,
            "repetition_penalty": 1.3,
        },
        {"do_sample": True, "temperature": 2.0, "min_p": 0.05, "eos_token_id": 70},
        {"temperature": 1.5, "typical_p": 0.6, "min_new_tokens": 3},
    ],
    ids=lambda asked: list(asked)[1],
)
def test_what_the_suite_asks_for_is_done_in_every_batch(asked, folder, tokenizer):
    model = ending(toy_model(), tokenizer)
    usual = answers(folder, model, tokenizer)
    first = answers(folder, model, tokenizer, generation=asked, max_gen_toks=12)
    assert first != usual
    assert answers(folder, model, tokenizer, 1, generation=asked, max_gen_toks=12) == first
    if not asked.get("do_sample", True):
        spec = LmEvalTask(task="drawn")
        kwargs = {**asked, "max_gen_toks": 12}
        alone = wrapped(model, tokenizer, 256, batch_size=1)
        samples = stock(alone, folder, spec, folder, kwargs)["samples"]["drawn"]
        theirs = {sample["doc"]["q"]: tuple(sample["resps"][0]) for sample in samples}
        assert theirs == first


def test_a_limit_stands_in_one_place_and_chances_only_where_answers_are_generated(
    folder, tokenizer
):
    with pytest.raises(TaskError, match="write max_gen_toks beside it"):
        answers(folder, None, tokenizer, generation={"max_new_tokens": 5})
    write(
        folder / "choice.yaml",
        "include: drawn.yaml\ntask: choice\noutput_type: multiple_choice\nrepeats: 1\n"
        "doc_to_choice: [a, b]\ndoc_to_target: a\nmetric_list: [{metric: acc}]\n",
    )
    with pytest.raises(TaskError, match="multiple_choice, so generation does not apply"):
        prepare("choice", LmEvalTask(generation={"top_p": 0.5}), [folder], tokenizer)


@pytest.mark.parametrize("repeats", [0, -3, 10**9, "five", "true"])
def test_repeats_that_are_no_number_of_answers_are_refused(repeats, folder, tokenizer):
    write(folder / "bad.yaml", f"include: drawn.yaml\ntask: bad\nrepeats: {repeats}\n")
    with pytest.raises(TaskError, match="must be a whole number from 1 to 10000"):
        prepare("bad", LmEvalTask(), [folder], tokenizer, max_length=256)


def test_a_seed_that_changes_nothing_is_refused(folder, tokenizer):
    write(
        folder / "greedy.yaml",
        "include: drawn.yaml\ntask: greedy\ngeneration_kwargs: {until: ['.'], max_gen_toks: 2}\n",
    )
    with pytest.raises(TaskError, match="draws no answers"):
        prepare("greedy", LmEvalTask(seed=3), [folder], tokenizer, max_length=256)
