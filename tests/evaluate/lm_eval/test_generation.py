"""Generated answers of prompts of odd shapes, against lm-eval's own class one prompt at a time."""

from __future__ import annotations

import json

import pytest

from helpers.lm_eval_runs import ending, stock, toy_model, toy_tokenizer, wrapped, write
from mbench.core.errors import TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate import shared_prompts
from mbench.evaluate.lm_eval.prepared_task import prepare

PREAMBLE = "Ünï ☃ the dog ran. " * 6
LONGEST = 120
TASK = """
    task: odd
    dataset_path: json
    dataset_kwargs: {{data_files: {{test: odd.jsonl}}}}
    output_type: generate_until
    test_split: test
    doc_to_text: "{{{{q}}}}"
    doc_to_target: "{{{{q}}}}"
    generation_kwargs: {{until: {until}, do_sample: false, max_gen_toks: {limit}}}
    metric_list: [{{metric: exact_match}}]
"""
ITEMS = [
    *(PREAMBLE + "sat " * at for at in range(8)),
    *(PREAMBLE + "the ☃ sat",) * 3,
    *("other words " * 5 + ending for ending in ("a", "é", "the cat", "zz")),
    # Cut on the left, so that they share nothing.
    *(PREAMBLE * 3 + f"cat {at}" for at in range(3)),
    "x",
    "é",
]


@pytest.fixture(scope="module")
def tokenizer():
    return toy_tokenizer(["the cat sat on the mat", PREAMBLE])


def answers(folder, model, tokenizer, until, limit, batch_tokens=200, items=ITEMS, scoring="rows"):
    """Ours, and lm-eval's one by one."""
    write(folder / "odd.yaml", TASK.format(until=json.dumps(until), limit=limit))
    lines = [json.dumps({"q": text}, ensure_ascii=False) for text in items]
    (folder / "odd.jsonl").write_text("\n".join(lines) + "\n")
    spec = LmEvalTask(task="odd")
    prepared = prepare("odd", spec, [folder], tokenizer, max_length=LONGEST)
    done = []
    table = prepared.evaluate(model, batch_tokens=batch_tokens, advance=done.append).items
    assert prepared.scoring == scoring
    assert sum(done) == prepared.tokens
    alone = stock(wrapped(model, tokenizer, LONGEST, batch_size=1), folder, spec, folder)
    samples = alone["samples"]["odd"]
    return table, [sample["resps"][0][0] for sample in samples], prepared


@pytest.mark.parametrize("limit", [1, 30])
@pytest.mark.parametrize("until", ["first", "inside", "several", "nothing"])
def test_answers_are_those_of_lm_eval_one_by_one(until, limit, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(shared_prompts, "PASS", 30)
    monkeypatch.chdir(tmp_path)
    model = ending(toy_model(5), tokenizer)
    _, plain, _ = answers(tmp_path, model, tokenizer, [], 30)
    long = [text for text in plain if len(text) > 8]
    assert long
    asked = {
        "first": [text[0] for text in long],
        "inside": [text[5:6] for text in long],
        "several": [text[3:8] for text in long],
        "nothing": [],
    }[until]
    table, expected, prepared = answers(tmp_path, model, tokenizer, asked, limit)
    assert table["answer"].tolist() == expected
    if until == "first":
        assert min(table["answer_tokens"]) <= 1
    # The preamble is read once for those that begin with it, and not for those that are cut.
    spared = sum(prompt.kept + limit for prompt in prepared.prompts) - prepared.tokens
    lengths = [prompt.kept for prompt in prepared.prompts]
    assert spared >= 10 * (len(tokenizer.encode(PREAMBLE)) - 2)
    assert spared < sum(lengths)
    assert prepared.work.prompt_tokens == sum(lengths) - spared


def test_an_empty_text_that_ends_answers_is_refused(tokenizer, tmp_path):
    with pytest.raises(TaskError, match="until has an empty text"):
        answers(tmp_path, toy_model(5), tokenizer, ["", "a"], 3)


def test_a_prompt_without_tokens_is_refused(tokenizer, tmp_path):
    with pytest.raises(TaskError, match="item 1 has an empty prompt"):
        answers(tmp_path, toy_model(5), tokenizer, ["a"], 3, items=["x", ""])


def test_prompts_whose_rotary_angles_follow_the_longest_are_answered_alone(
    tokenizer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, "factor": 4.0}
    rope |= {"original_max_position_embeddings": 40}
    rope |= {"short_factor": [1.0] * 4, "long_factor": [9.0] * 4}
    model = ending(toy_model(5, rope_parameters=rope), tokenizer)
    table, expected, _ = answers(
        tmp_path, model, tokenizer, [], 12, batch_tokens=4000, scoring="reference"
    )
    assert table["answer"].tolist() == expected
