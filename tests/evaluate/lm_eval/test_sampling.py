"""Drawn answers depend on the seed, the item and the repetition, and on nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from helpers.lm_eval_runs import toy_model, toy_tokenizer, write
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
    texts = prepared.requests.answer(model, batch_tokens, Meter(prepared.tokens, None))
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
    ],
)
def test_other_ways_to_generate_are_refused(options, words, folder, tokenizer):
    write(
        folder / "bad.yaml",
        f"include: drawn.yaml\ntask: bad\ngeneration_kwargs: {{until: ['.'], {options}}}\n",
    )
    with pytest.raises(TaskError, match=words):
        prepare("bad", LmEvalTask(), [folder], tokenizer, max_length=256)


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
