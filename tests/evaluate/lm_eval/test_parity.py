"""Every figure of many kinds of tasks and groups equals lm-eval's own for the same answers."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from helpers.lm_eval_runs import MadeUp, figures_of, stock, toy_model, with_made_up_answers
from mbench.core.errors import TaskError
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval.prepared_task import build

CODE = """
import json
import random
import datasets

def read(path, **_):
    splits = json.loads(open(path).read())
    random.shuffle(splits["test"])
    return datasets.DatasetDict({k: datasets.Dataset.from_list(v) for k, v in splits.items()})

def reversed_(docs):
    return docs.select(range(len(docs))[::-1])

def some(doc, results):
    answer = results[0]
    answer = answer[0] if isinstance(answer, (list, tuple)) else answer
    found = {"odd": float(len(str(answer)) % 2)}
    if doc["answer"]:
        found["late"] = 1.0
    return found
"""

FUNCTIONS = {"custom_dataset": "read", "process_docs": "reversed_", "process_results": "some"}

texts = st.text("abc #4(B)\n", min_size=1, max_size=12).filter(str.strip)


@st.composite
def documents(draw):
    choices = draw(st.lists(texts, min_size=2, max_size=4))
    return {
        "q": draw(texts),
        "choices": choices,
        "answer": draw(st.integers(0, len(choices) - 1)),
        "several": draw(st.lists(st.integers(0, len(choices) - 1), min_size=1, max_size=2)),
        "target": draw(st.sampled_from(["4", "12", "yes", "(B)", " the sea"])),
    }


FILTERS = st.sampled_from(
    [
        [{"function": "take_first"}],
        [{"function": "remove_whitespace"}, {"function": "take_first"}],
        [{"function": "lowercase"}, {"function": "take_first"}],
        [{"function": "regex", "regex_pattern": "(-?[0-9]+)"}, {"function": "take_first"}],
        [
            {"function": "regex", "regex_pattern": "(-?[0-9]+)", "group_select": -1},
            {"function": "majority_vote"},
            {"function": "take_first"},
        ],
        [
            {"function": "take_first_k", "k": 2},
            {"function": "majority_vote"},
            {"function": "take_first"},
        ],
        [
            {"function": "multi_choice_regex", "regex_pattern": "(\\([A-Z]\\))"},
            {"function": "take_first"},
        ],
        [{"function": "map", "mapping_dict": {"4": "12"}}, {"function": "take_first"}],
    ]
)
OF_CHOICES = ["acc", "acc_norm", "acc_bytes", "exact_match", "acc_mutual_info"]
METRICS = {
    "multiple_choice": OF_CHOICES,
    "loglikelihood": ["acc", "perplexity"],
    "generate_until": ["exact_match"],
    "loglikelihood_rolling": ["word_perplexity", "byte_perplexity", "bits_per_byte"],
}


@st.composite
def tasks(draw, name, kinds=tuple(METRICS)):
    kind = draw(st.sampled_from(kinds))
    metrics = draw(st.lists(st.sampled_from(METRICS[kind]), min_size=1, max_size=4, unique=True))
    config = {
        "task": name,
        "output_type": kind,
        "test_split": "test",
        "doc_to_text": draw(st.sampled_from(["{{q}}", "q", "Q: {{q}}\nA:", "{{q | upper}} "])),
        "doc_to_target": "target",
        "metric_list": [{"metric": metric} for metric in metrics],
        "target_delimiter": draw(st.sampled_from([" ", "\n", ""])),
        "description": draw(st.sampled_from(["", "Say: {{q}}\n\n"])),
        "repeats": draw(st.integers(1, 3)),
    }
    if draw(st.booleans()) and kind != "loglikelihood_rolling":
        config["num_fewshot"] = draw(st.integers(0, 3))
        config["fewshot_split"] = draw(st.sampled_from(["train", "test"]))
        config["fewshot_config"] = {"sampler": draw(st.sampled_from(["default", "first_n"]))}
    if kind == "multiple_choice":
        config["doc_to_choice"] = "choices"
        config["doc_to_target"] = draw(st.sampled_from(["answer", "{{answer}}", "several"]))
    if kind == "generate_until":
        filters = draw(st.lists(FILTERS, min_size=0, max_size=2))
        if filters:
            listed = [{"name": f"f{at}", "filter": each} for at, each in enumerate(filters)]
            config["filter_list"] = listed
        config["generation_kwargs"] = {"until": ["\n"], "do_sample": True, "temperature": 0.5}
        for metric in config["metric_list"]:
            metric["ignore_case"] = draw(st.booleans())
            metric["ignore_punctuation"] = draw(st.booleans())
            metric["regexes_to_ignore"] = draw(st.sampled_from([[","], ["\\.$", "#+ "]]))
    splits = {
        "train": draw(st.lists(documents(), min_size=1, max_size=4)),
        "test": draw(st.lists(documents(), min_size=1, max_size=6)),
    }
    codes = [
        name
        for name, chosen in (
            ("process_docs", draw(st.integers(0, 3)) == 0),
            ("process_results", draw(st.integers(0, 5)) == 0 and kind == "generate_until"),
        )
        if chosen
    ]
    if "process_results" in codes:
        config["metric_list"] = [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in ("odd", "late")
        ]
    return config, splits, codes


@st.composite
def groups(draw):
    count = draw(st.integers(1, 4))
    kinds = draw(st.sampled_from([("multiple_choice",), ("generate_until",)]))
    members = [draw(tasks(f"t{at}", kinds)) for at in range(count)]
    names = [config["task"] for config, _, _ in members]
    aggregates = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "metric": st.sampled_from(["acc", "acc_norm", "exact_match"]),
                    "weight_by_size": st.booleans(),
                },
                optional={"filter_list": st.sampled_from(["none", ["f0"], ["f0", "f1"]])},
            ),
            min_size=1,
            max_size=2,
        )
    )
    listed = [*names]
    if draw(st.booleans()):
        listed = [{"group": "inner", "task": names[:1]}, *names[draw(st.integers(0, 1)) :]]
    return members, {"group": "all", "task": listed, "aggregate_metric_list": aggregates}


def lay_out(folder: Path, members, group=None) -> None:
    (folder / "code.py").write_text(CODE)
    for config, splits, codes in members:
        name = config["task"]
        (folder / f"{name}.json").write_text(json.dumps(splits))
        config = {**config, "dataset_kwargs": {"path": str(folder / f"{name}.json")}}
        functions = {
            "custom_dataset": "read",
            "process_docs": "reversed_",
            "process_results": "some",
        }
        lines = [
            f"{key}: !function code.{function}\n"
            for key, function in functions.items()
            if key == "custom_dataset" or key in codes
        ]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config) + "".join(lines))
    if group is not None:
        (folder / "all.yaml").write_text(yaml.safe_dump(group))


REFUSED = (
    "no metric that can be used",
    "weighs some metrics by size",
    "have no late",
    "gives none of its metrics",
    "cannot be scored",
)
"""What is refused although lm-eval has some figure."""


def compare(folder: Path, name: str, model) -> None:
    spec = LmEvalTask(task=name)
    refusal = ""
    try:
        ours = with_made_up_answers(build(name, spec, [folder]), model)
    except TaskError as error:
        refusal = str(error)
    if refusal:
        assert "\n" not in refusal
        # What lm-eval cannot run is refused, and little else.
        with contextlib.suppress(Exception):
            theirs = stock(MadeUp(), folder, spec, folder)
            if not any(words in refusal for words in REFUSED):
                pytest.fail(f"{refusal}, but lm-eval has {theirs['results'][name]}")
        return
    theirs = figures_of(stock(MadeUp(), folder, spec, folder), name)
    found = {figure.name: figure for figure in ours.metrics}
    if "bits_per_byte" in found:
        if "bits_per_byte,none" in theirs:
            expected = theirs["bits_per_byte,none"]
            assert found["bits_per_byte"].value == pytest.approx(expected, rel=1e-9)
        return
    assert found
    several = len({key.partition(",")[2] for key in theirs}) > 1
    for key, value in theirs.items():
        metric = key.partition(",")[0]
        column = found.get(key) or (None if several else found.get(metric))
        if metric == "perplexity":
            assert column is None
        elif column is None:
            assert math.isnan(value) or metric == "late", key
        else:
            assert column.value == pytest.approx(value, abs=1e-9), key
            found.pop(column.name)
    assert not found


LIMITS = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "phases": (Phase.explicit, Phase.generate),
    "report_multiple_bugs": False,
}


@pytest.fixture(scope="module")
def model():
    return toy_model()


def run(model, strategy, tmp_path_factory, examples):
    @settings(max_examples=examples, **LIMITS)
    @given(strategy)
    def check(drawn):
        folder = tmp_path_factory.mktemp("tasks")
        members, group = drawn
        lay_out(folder, members, group)
        compare(folder, "all" if group else members[0][0]["task"], model)

    check()


def test_figures_of_tasks_equal_lm_eval(model, tmp_path_factory):
    run(model, tasks("one").map(lambda task: ([task], None)), tmp_path_factory, 40)


def test_figures_of_groups_equal_lm_eval(model, tmp_path_factory):
    run(model, groups(), tmp_path_factory, 20)


@pytest.mark.long
def test_figures_of_many_tasks_equal_lm_eval(model, tmp_path_factory):
    run(model, tasks("one").map(lambda task: ([task], None)), tmp_path_factory, 2000)


@pytest.mark.long
def test_figures_of_many_groups_equal_lm_eval(model, tmp_path_factory):
    run(model, groups(), tmp_path_factory, 1000)
