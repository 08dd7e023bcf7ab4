"""Length, end and repetitions of generated answers, against loops over token ids."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.lm_eval_runs import ending, stock, toy_model, toy_tokenizer, wrapped, write
from mbench.core.errors import TaskError
from mbench.core.evaluation import GENERATED_METRICS
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.answer_shape import ends_in_loop, repeated_grams
from mbench.evaluate.lm_eval.prepared_task import prepare

TASK = """
    task: told
    dataset_path: json
    dataset_kwargs: {data_files: {test: told.jsonl}}
    output_type: generate_until
    test_split: test
    doc_to_text: "{{q}}"
    doc_to_target: "{{q}}"
    generation_kwargs: {until: ["zzz"], do_sample: false, max_gen_toks: 40}
    metric_list: [{metric: exact_match}]
"""
ITEMS = [{"q": f"the cat {'sat ' * at}"} for at in range(7)]


def loops_by_hand(tokens):
    """Some passage of p tokens stands at the end three times or more, its last standing perhaps
    incomplete, and all of it has 32 tokens or more."""
    for period in range(1, len(tokens)):
        for length in range(max(3 * period, 32), len(tokens) + 1):
            end = tokens[-length:]
            if all(end[at] == end[at % period] for at in range(length)):
                return True
    return False


def repeated_by_hand(tokens):
    seen, again, count = [], 0, 0
    for at in range(len(tokens) - 3):
        gram = [tokens[at], tokens[at + 1], tokens[at + 2], tokens[at + 3]]
        count += 1
        if gram in seen:
            again += 1
        seen.append(gram)
    return again / count if count else 0.0


WORD = st.integers(0, 2)
LOOPED = st.builds(
    lambda start, passage, times, cut, end: start + (passage * times)[: -cut or None] + end,
    st.lists(WORD, max_size=12),
    st.lists(WORD, min_size=1, max_size=14),
    st.integers(0, 40),
    st.integers(0, 3),
    st.lists(WORD, max_size=1),
)


@settings(deadline=None, max_examples=400)
@given(LOOPED | st.lists(WORD, max_size=60))
@example([])
@example([0] * 31)
@example([0] * 32)
@example([*range(11)] * 3)
@example([*range(11)] * 2 + [*range(10)])
@example([*range(200), *[*range(50)] * 3])
def test_loops_and_repeated_passages_equal_loops_over_tokens(tokens):
    assert ends_in_loop(tokens) == loops_by_hand(tokens)
    assert repeated_grams(tokens) == pytest.approx(repeated_by_hand(tokens), abs=1e-12)


def test_an_answer_as_long_as_a_context_takes_no_time():
    for answer in ([0] * 99_999 + [1], [*range(33_333)] * 3, [0, 1] * 49_999 + [0, 0]):
        assert ends_in_loop(answer) == (answer[-1] == 33_332)


@pytest.fixture(scope="module")
def tokenizer():
    return toy_tokenizer([item["q"] for item in ITEMS])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "told.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    write(tmp_path / "told.yaml", TASK)
    return tmp_path


def chained(tokenizer, follows):
    """A model that says after each token the one that `follows` it, and else the end of text.

    Its layers give nothing, so that only the token itself is seen by the output layer.
    """
    model = toy_model(tie_word_embeddings=False)
    rows = model.config.vocab_size
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                parameter.zero_()
        width = model.config.hidden_size
        codes = torch.randn(rows, width, generator=torch.manual_seed(1)).sign()
        model.model.embed_tokens.weight.copy_(codes)
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.eos_token_id] = 0.0
        for token, following in follows.items():
            model.lm_head.weight[following] += codes[token]
    return model


def evaluated(folder, model, tokenizer, batch_tokens=8192, **spec):
    prepared = prepare("told", LmEvalTask(**spec), [folder], tokenizer, max_length=256)
    return prepared.evaluate(model, batch_tokens=batch_tokens)


def test_a_model_that_repeats_itself_loops_and_one_that_ends_does_not(folder, tokenizer):
    letters = [tokenizer.convert_tokens_to_ids(letter) for letter in "ABCDE"]
    a, b, c, d, e = letters
    first = tokenizer.encode("the cat ")[-1], tokenizer.encode("the cat sat ")[-1]
    circle = chained(tokenizer, {**dict.fromkeys(first, a), a: b, b: c, c: a})
    table = evaluated(folder, circle, tokenizer).items
    assert set(table["answer"]) == {"ABC" * 13 + "A"}
    assert (table[["hit_limit", "loops", "answer_tokens"]] == [1, 1, 40]).all(axis=None)
    assert table["rep_4"].tolist() == pytest.approx([1 - 3 / 37] * 7)
    write(folder / "told.yaml", TASK.replace('["zzz"]', '["CA"]'))
    table = evaluated(folder, circle, tokenizer).items
    assert set(table["answer"]) == {"AB"}
    assert (table[["hit_limit", "loops", "answer_tokens"]] == [0, 0, 4]).all(axis=None)
    line = chained(tokenizer, {**dict.fromkeys(first, a), a: d, d: e, e: tokenizer.eos_token_id})
    table = evaluated(folder, line, tokenizer).items
    assert set(table["answer"]) == {"ADE"}
    assert (table[["hit_limit", "loops", "rep_4", "answer_tokens"]] == [0, 0, 0, 3]).all(axis=None)
    short = evaluated(folder, circle, tokenizer, max_gen_toks=3)
    assert "loops" not in short.items
    assert (short.items[["hit_limit", "answer_tokens"]] == [1, 3]).all(axis=None)


def by_hand(model, tokenizer, question, until, limit):
    """The answer's tokens, one argmax after another, and whether it ended; the text as lm-eval
    cuts it."""
    tokens, start = tokenizer.encode(question), len(tokenizer.encode(question))
    ended = False
    while len(tokens) - start < limit and not ended:
        with torch.no_grad():
            token = int(model(torch.tensor([tokens])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            ended = True
            break
        tokens.append(token)
        ended = any(text in tokenizer.decode(tokens[start:]) for text in until)
    text = tokenizer.decode(tokens[start:], skip_special_tokens=True)
    for each in until:
        text = text.split(each)[0]
    return text, tokens[start:], ended


@pytest.mark.parametrize("batch_tokens", [1, 8192])
def test_texts_and_shapes_equal_one_argmax_after_another_and_lm_eval(
    batch_tokens, folder, tokenizer, tmp_path
):
    model = ending(toy_model(3), tokenizer)
    until = ["FF", "zzz", "=\x04"]
    write(folder / "told.yaml", TASK.replace('["zzz"]', json.dumps(until)))
    spec = LmEvalTask(task="told")
    table = evaluated(folder, model, tokenizer, batch_tokens).items
    expected = [by_hand(model, tokenizer, item["q"], until, 40) for item in ITEMS]
    assert table["answer"].tolist() == [text for text, _, _ in expected]
    assert table["answer_tokens"].tolist() == [len(tokens) for _, tokens, _ in expected]
    assert table["hit_limit"].tolist() == [float(not ended) for _, _, ended in expected]
    assert table["loops"].tolist() == [float(loops_by_hand(own)) for _, own, _ in expected]
    assert 0 < table["hit_limit"].mean() < 1
    assert any(tokenizer.decode(tokens).endswith("FF") for _, tokens, _ in expected)
    alone = wrapped(model, tokenizer, 256, batch_size=1)
    samples = stock(alone, folder, spec, folder)["samples"]["told"]
    assert table["answer"].tolist() == [sample["resps"][0][0] for sample in samples]


def test_of_several_answers_the_means(folder, tokenizer):
    write(folder / "told.yaml", TASK + "    repeats: 3\n")
    drawn = {"do_sample": True, "temperature": 1.0}
    model = ending(toy_model(), tokenizer)
    found = evaluated(folder, model, tokenizer, generation=drawn)
    again = evaluated(folder, model, tokenizer, batch_tokens=1, generation=drawn)
    assert found.items.equals(again.items)
    thirds = found.items["hit_limit"] * 3
    assert (thirds - thirds.round()).abs().max() < 1e-12
    assert {0 < value < 1 for value in found.items["hit_limit"]} == {True, False}
    assert [metric.name for metric in found.metrics] == ["exact_match", *GENERATED_METRICS]
    by_name = {metric.name: metric for metric in found.metrics}
    lengths = found.items["answer_tokens"]
    assert by_name["answer_tokens"].value == pytest.approx(lengths.mean())
    assert by_name["answer_tokens"].stderr == pytest.approx(lengths.std(ddof=1) / math.sqrt(7))


@pytest.mark.parametrize("metric", GENERATED_METRICS)
def test_nothing_is_ranked_by_how_answers_look(metric, folder):
    from mbench.evaluate.lm_eval.prepared_task import build

    figures = build("told", LmEvalTask(), [folder]).figures
    assert figures.names == ("exact_match",)
    with pytest.raises(TaskError, match=rf"metric '{metric}' says how answers look"):
        figures.refuse_unless_kept(metric)
