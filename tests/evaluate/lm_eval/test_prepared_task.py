"""lm-eval tasks: equal to lm-eval's own evaluation, whatever the route; errors in one line."""

import hashlib
import json
import math

import pytest
import torch
from transformers import (
    GraniteMoeConfig,
    GraniteMoeForCausalLM,
)

from helpers.lm_eval_runs import (
    VOCABULARY,
    stock,
    toy_model,
    wrapped,
    write,
)
from helpers.places import DATA
from helpers.toy_task import ITEMS, TOY, made_ready, tokenizer_of_words, write_task
from mbench.core.batch_limit import BatchLimit
from mbench.core.errors import TaskError
from mbench.core.evaluation import GENERATED_METRICS
from mbench.core.suite import LmEvalTask
from mbench.evaluate.lm_eval import builtin
from mbench.evaluate.lm_eval.task_files import read

needs_data = pytest.mark.skipif(
    not (DATA / "tasks").is_dir(), reason=f"no sample of the real task files in {DATA}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of_words()


def granite():
    torch.manual_seed(0)
    config = GraniteMoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
        num_experts_per_tok=2,
        initializer_range=0.3,
        logits_scaling=4.0,
    )
    return GraniteMoeForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture
def folder(tmp_path):
    return write_task(tmp_path)


def ours(model, tokenizer, folder, spec=TOY, max_length=512, **options):
    prepared = made_ready(folder, tokenizer, spec, max_length)
    return prepared, prepared.evaluate(model, **options)


def theirs(model, tokenizer, folder, spec, working_directory, max_length=512, dtype="float32"):
    answers = wrapped(model, tokenizer, max_length, dtype)
    return stock(answers, folder, spec, working_directory)


def assert_equal(evaluation, results, spec, tolerance=1e-3):
    """Same items in the same order, same log-likelihoods, same figures per item and in all."""
    figures = {
        metric.name: metric.value
        for metric in evaluation.metrics
        if metric.name not in GENERATED_METRICS
    }
    for name, expected in results["results"][spec.task].items():
        metric, _, kept = name.partition(",")
        if kept and not metric.endswith("_stderr"):
            column = metric if kept == "none" else name
            assert figures.pop(column) == pytest.approx(expected, abs=1e-12)
    assert not figures
    samples = [sample for task in results["samples"].values() for sample in task]
    if not any("," in column for column in evaluation.items):
        for row, sample in zip(evaluation.items.to_dict("records"), samples, strict=True):
            document = json.dumps(sample["doc"], sort_keys=True, ensure_ascii=False, default=str)
            hashes = [hashlib.sha256(document.encode()).hexdigest()[:12]]
            hashes += [sample[f"{kind}_hash"][:12] for kind in ("prompt", "target")]
            assert row["item"].endswith(":".join([str(sample["doc_id"]), *hashes]))
            kept = [metric for metric in sample["metrics"] if metric in row]
            assert kept
            assert all(row[metric] == sample[metric] for metric in kept)
            found = [value for value, _ in sample["filtered_resps"]]
            assert row["loglikelihoods"] == pytest.approx(found, abs=tolerance)
    assert evaluation.items["item"].is_unique


@needs_data
@pytest.mark.parametrize("name", ["arc_easy", "winogrande", "boolq", "piqa", "hellaswag", "mmlu"])
def test_real_tasks_equal_lm_eval(name, model, tokenizer):
    spec = LmEvalTask(task=f"mbench_{name}", limit=6)
    seen = []
    prepared, found = ours(model, tokenizer, DATA / "tasks", spec, advance=seen.append)
    assert_equal(found, theirs(model, tokenizer, DATA / "tasks", spec, DATA), spec)
    assert prepared.scoring == "packed"
    assert sum(seen) == prepared.tokens
    assert prepared.items == len(found.items) == 6


@needs_data
def test_generated_answers_equal_lm_eval(model, tokenizer, tmp_path):
    source = DATA / "tasks" / "gsm8k.yaml"
    write(
        tmp_path / "short.yaml",
        f"""
        include: {source}
        task: short
        generation_kwargs: {{until: ["Question:"], do_sample: false, max_gen_toks: 24}}
        """,
    )
    spec = LmEvalTask(task="short", limit=2, num_fewshot=1)
    _, found = ours(model, tokenizer, tmp_path, spec, max_length=1500)
    assert_equal(found, theirs(model, tokenizer, tmp_path, spec, DATA, max_length=1500), spec)
    assert list(found.items) == [
        "item",
        "exact_match,strict-match",
        "exact_match,flexible-extract",
        "answer",
        "hit_limit",
        "rep_4",
        "answer_tokens",
    ]


@needs_data
def test_rolling_equals_lm_eval(model, tokenizer):
    spec = LmEvalTask(task="mbench_wikitext", limit=2)
    _, found = ours(model, tokenizer, DATA / "tasks", spec)
    results = theirs(model, tokenizer, DATA / "tasks", spec, DATA)["results"]
    expected = results["mbench_wikitext"]
    figures = {metric.name: metric.value for metric in found.metrics}
    assert figures["bits_per_byte"] == pytest.approx(expected["bits_per_byte,none"], rel=1e-6)
    # Whole documents, each a unit of its own.
    assert found.items["document"].tolist() == [0, 1]
    assert [metric.items for metric in found.metrics] == [2] * len(found.metrics)


def test_groups_keep_their_subtasks(folder, model, tokenizer):
    write(folder / "again.yaml", 'include: toy.yaml\ntask: again\ndoc_to_text: "{{q}}"\n')
    write(
        folder / "both.yaml",
        """
        group: both
        task: [toy, again]
        aggregate_metric_list:
          - {metric: acc, weight_by_size: true}
          - {metric: acc_norm, weight_by_size: true}
        """,
    )
    spec = LmEvalTask(task="both")
    _, found = ours(model, tokenizer, folder, spec)
    assert_equal(found, theirs(model, tokenizer, folder, spec, folder.parent), spec)
    assert list(found.items["subtask"]) == ["toy"] * 4 + ["again"] * 4


@pytest.mark.parametrize(
    ("make", "scoring"),
    [
        (toy_model, "packed"),
        (lambda: toy_model(attn_implementation="eager"), "packed"),
        (
            lambda: toy_model(use_sliding_window=True, sliding_window=8, max_window_layers=1),
            "reference",
        ),
        (granite, "reference"),
    ],
    ids=["sdpa", "eager", "sliding window", "scaled logits"],
)
def test_every_route_equals_lm_eval_in_float64(make, scoring, folder, tokenizer):
    model = make().double()
    model.set_experts_implementation("eager")  # the default has no float64
    # The shortest limit cuts prompts on the left; the fewest tokens put every row by itself.
    for max_length, batch_tokens in ((512, 8192), (512, 1), (10, 64)):
        prepared, found = ours(
            model, tokenizer, folder, max_length=max_length, batch_tokens=batch_tokens
        )
        expected = theirs(model, tokenizer, folder, TOY, folder.parent, max_length, "float64")
        # Eager attention takes its softmax in float32 whatever the model's dtype.
        exact = model.config._attn_implementation == "sdpa"
        assert_equal(found, expected, TOY, tolerance=1e-9 if exact else 1e-5)
        assert prepared.scoring == scoring
    # The choices that read the same get the very same figure, or ties would be broken by rounding.
    first, second, _ = found.items["loglikelihoods"][1]
    assert first == second


def test_comparing_figures_finds_what_the_configuration_hides(folder, tokenizer, monkeypatch):
    monkeypatch.setattr("mbench.evaluate.packing.unsuitable", lambda model: None)
    model = toy_model(use_sliding_window=True, sliding_window=8, max_window_layers=1)
    prepared, _ = ours(model, tokenizer, folder)
    assert prepared.scoring == "reference"


@pytest.mark.parametrize("scoring", ["packed", "reference"])
def test_memory_that_runs_out_costs_no_item(scoring, folder, tokenizer, monkeypatch):
    if scoring == "reference":
        monkeypatch.setattr("mbench.evaluate.packing.unsuitable", lambda model: "it is asked for")
    model = toy_model()
    expected = made_ready(folder, tokenizer).evaluate(model).items
    forward = model.base_model.forward

    def small(input_ids, **options):
        if input_ids.numel() > 40:
            raise torch.OutOfMemoryError("no")
        return forward(input_ids=input_ids, **options)

    prepared, limit = made_ready(folder, tokenizer), BatchLimit(8192)
    counted = []
    monkeypatch.setattr(model.base_model, "forward", small)
    found = prepared.evaluate(model, batch_tokens=limit, advance=counted.append).items
    assert prepared.scoring == scoring
    assert limit.tokens <= 128
    assert sum(counted) == prepared.tokens
    for one, two in zip(found["loglikelihoods"], expected["loglikelihoods"], strict=True):
        assert one == pytest.approx(two, rel=1e-5)


def test_one_mask_never_sees_the_results_of_another(folder, tokenizer):
    model = toy_model()
    prepared = made_ready(folder, tokenizer)
    before = prepared.evaluate(model).items
    router = model.model.layers[0].mlp.gate
    handle = router.register_forward_hook(lambda module, inputs, out: (out[0], out[1] * 0, out[2]))
    masked = prepared.evaluate(model).items
    handle.remove()
    after = prepared.evaluate(model).items
    assert before.equals(after)
    assert list(before["item"]) == list(masked["item"])
    assert list(before["loglikelihoods"]) != list(masked["loglikelihoods"])
    other = prepared.evaluate(toy_model(seed=1)).items
    assert list(before["loglikelihoods"]) != list(other["loglikelihoods"])


@pytest.mark.parametrize("kind", ["multiple_choice", "generate_until"])
def test_output_that_is_not_finite_is_an_error(kind, folder, tokenizer):
    if kind == "generate_until":
        write(
            folder / "toy.yaml",
            """
            task: toy
            dataset_path: json
            dataset_kwargs: {data_files: {test: toy.jsonl}}
            output_type: generate_until
            test_split: test
            doc_to_text: "{{q}}"
            doc_to_target: answer
            generation_kwargs: {until: ["."], max_gen_toks: 4}
            metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
            """,
        )
    model = toy_model()
    prepared = made_ready(folder, tokenizer, max_length=64)
    prepared.evaluate(model)
    with torch.no_grad():
        model.model.layers[1].mlp.experts.down_proj.fill_(math.nan)
    with pytest.raises(TaskError, match=r"task 'toy'.* item \d.*not finite|not finite.* item \d"):
        prepared.evaluate(model)
    with pytest.raises(TaskError, match="not finite"):
        made_ready(folder, tokenizer, max_length=64).evaluate(model)


def test_requests_longer_than_the_model_are_an_error(folder, tokenizer):
    model = toy_model()
    model.config.max_position_embeddings = 4
    with pytest.raises(TaskError, match="4 positions"):
        ours(model, tokenizer, folder)


def test_a_local_task_goes_before_a_builtin_of_its_name(folder, model, tokenizer):
    (folder / "toy.yaml").write_text((folder / "toy.yaml").read_text().replace("toy\n", "piqa\n"))
    assert "piqa" in builtin.index().names
    assert read([folder]).names == ["piqa"]
    _, found = ours(model, tokenizer, folder, LmEvalTask(task="piqa"))
    assert len(found.items) == len(ITEMS)


def test_nothing_reaches_the_terminal(folder, model, tokenizer, capfd):
    ours(model, tokenizer, folder)
    assert capfd.readouterr() == ("", "")
