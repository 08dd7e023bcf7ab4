"""The demo: its text, the committed model, the cloze tasks and the recipe."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from dataclasses import asdict, replace
from itertools import combinations, pairwise

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from mbench_plugins.demo import cloze, text
from mbench_plugins.demo.muon import orthogonalise
from mbench_plugins.demo.plugin import MODEL, TASKS
from mbench_plugins.demo.text import CORPORA, MissingText, documents
from mbench_plugins.demo.tokens import token_stream, windows
from mbench_plugins.demo.train import Recipe, imbalance, train
from mbench_plugins.demo.wikitext import plain

try:
    for each_corpus in CORPORA:
        documents(each_corpus, "evaluation")
except MissingText as missing:
    pytest.skip(str(missing), allow_module_level=True)

LENGTH = 256
ITEMS_DIGEST = {"bible": "3626576e6a6c9833", "wiki": "e1b9edfb9f01a119", "code": "4d959bf3fc544631"}
"""Start of the sha256 of all items: they are the same on every machine."""
SHARED_BY_FREQUENCY = 0.75
"""Mean share of the half most used experts that two corpora have in common: 0.27 to 0.56 measured,
0.5 by chance, 1 if experts were used alike."""
SHARED_BY_SCORE = 0.9
"""The same for the half with the highest mean gate x output norm: 0.73 to 0.85 measured."""


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def model():
    loaded = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    loaded.set_experts_implementation("eager")
    return loaded.eval()


@pytest.fixture(scope="module")
def streams(tokenizer):
    """Some tokens of every held-out split: (corpus, split) -> (tokens,)."""
    return {
        (corpus, split): token_stream(tokenizer, documents(corpus, split))
        for corpus in CORPORA
        for split in ("calibration", "evaluation")
    }


@pytest.mark.parametrize("corpus", CORPORA)
def test_splits_are_disjoint_and_cover_the_corpus(corpus):
    splits = [documents(corpus, split) for split in text.SPLITS]
    together = [document for split in splits for document in split]
    assert len(together) == len(set(together))
    assert text.digest(corpus) == text.source(corpus).digest
    assert splits == [documents(corpus, split) for split in text.SPLITS]


def test_no_long_passage_of_held_out_text_was_trained_on():
    for corpus in CORPORA:
        trained = {line for page in documents(corpus, "train") for line in page.split("\n")}
        held_out = [
            line
            for split in ("calibration", "evaluation")
            for page in documents(corpus, split)
            for line in page.split("\n")
            if len(line) > 100
        ]
        repeated = sum(line in trained for line in held_out)
        assert repeated <= 0.01 * len(held_out), (corpus, repeated, len(held_out))


def test_held_out_splits_are_large_enough(streams):
    for corpus in CORPORA:
        assert len(streams[corpus, "calibration"]) > 60_000
        assert len(streams[corpus, "evaluation"]) > 40_000


def test_wiki_markup_is_dropped():
    sentence = "The cat sat on the mat, which is what a cat does when it is left alone."
    marked = sentence.replace("cat", "[[Felis|cat]]", 1).replace("mat", "'''mat'''<ref>no</ref>")
    page = (
        f"{{{{Box|a={{{{b}}}}}}}}\n== Head ==\n[[File:x.png|a [[cat]] here]]{marked}\n* {sentence}"
    )
    assert plain(page + "\n== References ==\n" + sentence * 2) == sentence


def test_missing_and_changed_packages_are_one_clear_line(monkeypatch):
    bible = text.source("bible")
    for change, error, words in (
        ({"package": "no-such-package"}, text.MissingText, "no-such-package==0.0.2"),
        ({"digest": "0"}, text.ChangedText, "text differs"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(text.SOURCES, "bible", replace(bible, **change))
            with pytest.raises(error, match=words) as raised:
                documents("bible", "train")
            assert "pip install 'mbench[demo]'" in str(raised.value)
            assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="unknown split"):
        documents("bible", "test")


@pytest.mark.parametrize("corpus", CORPORA)
def test_cloze_items_come_from_held_out_text_and_are_balanced(corpus):
    made = cloze.items(corpus)
    recorded = hashlib.sha256(json.dumps([asdict(item) for item in made]).encode()).hexdigest()
    assert recorded.startswith(ITEMS_DIGEST[corpus])
    assert len(made) >= 400
    assert set(Counter(item.answer for item in made).values()) == {len(made) // 4}
    pages = documents(corpus, "evaluation")
    for item in made[::10]:
        truth = item.choices[item.answer]
        assert any(f"{item.context} {truth}" in page for page in pages)
        assert len(set(item.choices)) == 4
        for choice in item.choices:
            assert any(f" {choice}" in page for page in pages)
            assert abs(len(choice) - len(truth)) <= 2


@torch.no_grad()
def test_model_beats_a_unigram_model_by_far(model, streams):
    for corpus in CORPORA:
        counts = torch.bincount(streams[corpus, "calibration"], minlength=model.config.vocab_size)
        unigram = ((counts + 1) / (counts + 1).sum()).log()
        rows = windows(streams[corpus, "evaluation"], LENGTH)[::40]
        logits = model(input_ids=rows).logits[:, :-1]
        targets = rows[:, 1:]
        loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()
        assert math.exp(loss) < 0.15 * math.exp(-unigram[targets].mean().item())


@torch.no_grad()
def test_experts_specialise_by_corpus(model, streams):
    halves = {
        corpus: _best_halves(model, windows(streams[corpus, "calibration"], LENGTH)[::20])
        for corpus in CORPORA
    }
    for one, other in combinations(CORPORA, 2):
        frequency, score = (
            (mine.unsqueeze(2) == theirs.unsqueeze(1)).any(2).float().mean().item()
            for mine, theirs in zip(halves[one], halves[other], strict=True)
        )
        assert frequency < SHARED_BY_FREQUENCY, (one, other, frequency)
        assert score < SHARED_BY_SCORE, (one, other, score)


def _best_halves(model, rows):
    """The better half of the experts by use and by mean gate x output norm, each (layers, half)."""
    uses, sums = torch.zeros(2, model.config.num_hidden_layers, model.config.num_experts)

    def record(layer):
        def hook(experts, arguments, _):
            hidden, index, gates = arguments
            for expert in range(experts.num_experts):
                token, slot = torch.where(index == expert)
                gate, up = (hidden[token] @ experts.gate_up_proj[expert].T).chunk(2, dim=-1)
                out = (experts.act_fn(gate) * up) @ experts.down_proj[expert].T
                sums[layer, expert] += (gates[token, slot] * out.norm(dim=-1)).sum()
                uses[layer, expert] += len(token)

        return hook

    handles = [
        block.mlp.experts.register_forward_hook(record(layer))
        for layer, block in enumerate(model.model.layers)
    ]
    model(input_ids=rows)
    for handle in handles:
        handle.remove()
    half = model.config.num_experts // 2
    return [values.topk(half, dim=1).indices for values in (uses, sums / uses.clamp(min=1))]


def test_cloze_tasks_run_in_lm_eval(model, tokenizer):
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    names = [f"cloze_{corpus}" for corpus in CORPORA]
    assert sorted(names) == sorted(path.stem for path in TASKS.glob("*.yaml"))
    results = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=32),
        tasks=names,
        limit=32,
        bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
    )
    accuracy = [results["results"][name]["acc,none"] for name in names]
    assert sum(accuracy) / len(accuracy) > 0.45


def test_imbalance_is_one_for_even_use_and_more_for_uneven_use():
    even = 9 * torch.eye(4)
    uneven = even[[0, 0, 0, 1]]
    assert imbalance((even, even), chosen=1).item() == pytest.approx(1)
    assert imbalance((even, uneven), chosen=1).item() > 1.5


def test_orthogonalised_matrices_keep_their_directions():
    torch.manual_seed(0)
    matrices = torch.randn(3, 8, 5)
    values = torch.linalg.svdvals(orthogonalise(matrices))
    assert values.min() > 0.5
    assert values.max() < 1.5
    assert (orthogonalise(matrices) * matrices).sum() > 0


def test_recipe_runs_and_its_output_loads(tmp_path):
    texts = {corpus: documents(corpus, "calibration")[:2] for corpus in CORPORA}
    recipe = Recipe(
        tokens=600, vocabulary=300, hidden=32, layers=1, heads=2, experts=8, chosen=2,
        expert_width=8, shared_width=8, length=32, rows=6, micro_batches=2,
    )  # fmt: skip
    trained = train(recipe, tmp_path, texts=texts)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(tmp_path)("And it came to pass", return_tensors="pt")
    with torch.no_grad():
        # Weights are stored in bfloat16.
        assert torch.allclose(loaded(**ids).logits, trained(**ids).logits, atol=0.05)
    again = train(recipe, tmp_path / "again", texts=texts)
    for one, other in pairwise((trained.state_dict(), again.state_dict())):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_identity_is_told_without_reading_and_follows_the_text(monkeypatch):
    from mbench_plugins.demo import text

    told = {(c, s): text.identity(c, s) for c in text.CORPORA for s in ("train", "evaluation")}
    assert len(set(told.values())) == len(told)
    for (corpus, split), identity in told.items():
        assert text.digest(corpus) in identity
        assert split in identity
    with pytest.raises(ValueError, match="unknown split 'foo'"):
        text.identity("wiki", "foo")
    unread = replace(text.source("wiki"), read=lambda installed: pytest.fail("it was read"))
    monkeypatch.setitem(text.SOURCES, "wiki", unread)
    assert text.identity("wiki", "train") == told["wiki", "train"]
