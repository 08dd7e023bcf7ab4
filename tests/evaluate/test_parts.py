"""Parts of a task: its items, as they are among all, and put together again."""

import numpy as np
import pandas as pd
import pytest

from helpers.lm_eval_runs import toy_model, toy_tokenizer, write
from mbench.core.suite import LmEvalTask, PerplexityTask
from mbench.core.suite_inputs import TextSource
from mbench.evaluate import perplexity
from mbench.evaluate.lm_eval.prepared_task import prepare

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "rain",
    "fell",
    "from",
    "clouds",
    "over",
    "the",
    "river",
    "and",
    "the",
    "sea",
]

COMMON = """
    dataset_path: json
    dataset_kwargs: {data_files: {test: toy.jsonl}}
    test_split: test
"""

TASKS = {
    "choices": COMMON
    + """
    task: choices
    output_type: multiple_choice
    doc_to_text: "Q: {{q}}\\nA:"
    doc_to_choice: "{{choices}}"
    doc_to_target: answer
    metric_list:
      - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "again": COMMON
    + """
    task: again
    output_type: multiple_choice
    doc_to_text: "{{q}}"
    doc_to_choice: "{{choices}}"
    doc_to_target: answer
    metric_list:
      - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    "whole": COMMON
    + """
    task: whole
    output_type: loglikelihood_rolling
    doc_to_text: ""
    doc_to_target: "{{q}}"
    metric_list:
      - {metric: bits_per_byte}
""",
    "said": COMMON
    + """
    task: said
    output_type: generate_until
    doc_to_text: "{{q}}"
    doc_to_target: "{{choices[0]}}"
    generation_kwargs: {until: ["."], max_gen_toks: 8}
    metric_list:
      - {metric: exact_match, aggregation: mean, higher_is_better: true}
""",
    "both": """
    group: both
    task: [choices, again]
    aggregate_metric_list:
      - {metric: acc, weight_by_size: false}
""",
}


def sentences(count):
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(2, 9))) for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer():
    return toy_tokenizer([" ".join(WORDS) * 3])


@pytest.fixture(scope="module")
def model():
    return toy_model()


def of_lm_eval(name, tmp_path, tokenizer):
    texts = sentences(12)
    rows = [
        {"q": text, "choices": [text[:4], WORDS[n], "it"], "answer": n % 3}
        for n, text in enumerate(texts)
    ]
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    pd.DataFrame(rows).to_json(tmp_path / "toy.jsonl", orient="records", lines=True)
    for each, text in TASKS.items():
        write(tasks / f"{each}.yaml", text)
    return prepare(name, LmEvalTask(task=name), [tasks], tokenizer, max_length=128)


def of_text(protocol, tokenizer):
    settings = {"stride": 8} if protocol == "sliding" else {}
    spec = PerplexityTask(
        source=TextSource(plugin="none"), protocol=protocol, window=16, **settings
    )
    texts = [[text] for text in sentences(20)]
    return perplexity.prepare("text", spec, texts, tokenizer, 128)


@pytest.mark.parametrize(
    "name", ["choices", "both", "whole", "said", "gptq", "sliding", "document"]
)
def test_parts_make_the_whole(name, tmp_path, tokenizer, model):
    whole = of_lm_eval(name, tmp_path, tokenizer) if name in TASKS else of_text(name, tokenizer)
    together = np.array(whole.together)
    pieces = np.unique(together)
    first = np.isin(together, pieces[np.random.default_rng(1).permutation(len(pieces))[::3]])
    parts = [whole.part(np.flatnonzero(chosen).tolist()) for chosen in (first, ~first)]
    expected = whole.evaluate(model)
    counted: list[int] = []
    tables = [part.evaluate(model, advance=counted.append).items for part in parts]
    assert [part.item_names for part in parts] == [table["item"].tolist() for table in tables]
    assert sum(part.items for part in parts) == whole.items
    # What items of both parts begin with is read in each.
    assert sum(part.tokens for part in parts) == sum(counted) >= whole.tokens
    assert sum(part.generated for part in parts) == whole.generated
    found = whole.join(tables[::-1])
    pd.testing.assert_frame_equal(found.items, expected.items, rtol=1e-5)
    values = {metric.name: metric.value for metric in expected.metrics}
    assert {m.name: m.value for m in found.metrics} == pytest.approx(values, rel=1e-5)


def test_a_part_keeps_the_order_it_is_given(tmp_path, tokenizer, model):
    whole = of_lm_eval("choices", tmp_path, tokenizer)
    part = whole.part([7, 2])
    assert part.item_names == [whole.item_names[7], whole.item_names[2]]
    assert part.evaluate(model).items["item"].tolist() == part.item_names
    assert part.texts == [whole.texts[7], whole.texts[2]]
