"""What is found out about models, their tokenizers and the texts that are cut for them."""

from __future__ import annotations

import json

import pytest

from helpers.tiny_models import VOCABULARY, mixtral, qwen2_moe, save
from helpers.tiny_suite import plan_of
from mbench.core.errors import AdmissionError
from mbench.plan.admission.admit import admit, refuse
from mbench.plan.models import PlannedModel
from mbench.plan.plan import make_plan
from mbench.plan.plugin_loading import load_registry
from mbench.plan.suite_file import load_suite

SUITE = """\
name: tiny
models: {{it: {{path: {model}}}}}
retain: [0.5]
corpora:
  words: {{source: {{files: [{text}]}}, sequences: 4, length: 16}}
  unused: {{source: {{files: [{text}]}}, sequences: 4, length: 1000}}
methods: {{reap: {{corpora: [words]}}}}
perplexity:
  ppl: {{source: {{files: [{text}]}}, window: 16, stride: 8}}
  published: {{source: {{files: [{text}]}}, window: 16, protocol: gptq}}
"""
WORDS = 200


@pytest.fixture
def model(tmp_path):
    return save(mixtral(), tmp_path / "model")


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def found(tmp_path, store, model, **narrowing):
    """The findings of a suite on a model, and what refuses them."""
    text = tmp_path / "text.txt"
    text.write_text(" ".join(f"w{at % 30 + 30}" for at in range(0, 7 * WORDS, 7)))
    suite = SUITE.format(model=model, text=text)
    plan = plan_of(tmp_path, store, suite, **narrowing)
    return admit(plan, store), load_suite(tmp_path / "suite.yaml", **narrowing)[1]


def words_of(findings, fact, level=None):
    return [f.words for f in findings if f.fact == fact and level in (None, f.level)]


def adds_bos(model):
    text = {"Sequence": {"id": "A", "type_id": 0}}
    single = [{"SpecialToken": {"id": "w1", "type_id": 0}}, text]
    known = {"w1": {"id": "w1", "ids": [1], "tokens": ["w1"]}}
    pair = [text, {"Sequence": {"id": "B", "type_id": 1}}]
    processor = {"type": "TemplateProcessing", "special_tokens": known}
    edit(model / "tokenizer.json", post_processor=processor | {"single": single, "pair": pair})


def test_no_weights_are_read_and_a_second_look_reads_no_tokenizer(
    tmp_path, store, model, monkeypatch
):
    weights = model / "model.safetensors"
    weights.write_bytes(b"no weights at all")
    first, _ = found(tmp_path, store, model)
    monkeypatch.setattr(PlannedModel, "tokenizer_and_padding", property(lambda self: 1 / 0))
    again, _ = found(tmp_path, store, model)
    assert again == first
    assert not [finding for finding in first if finding.level == "refused"]
    assert words_of(first, "largest token id") == ["63, and the embedding has 64 rows"]
    assert words_of(first, "positions") == ["64"]
    assert words_of(first, "sequences") == ["4 of up to 16 tokens, none begins with BOS"]


def test_what_is_ignored_or_missing_is_a_note(tmp_path, store, model):
    edit(model / "config.json", output_router_logits=True, attn_implementation="flash_attention_2")
    edit(model / "generation_config.json", num_beams=4)
    edit(model / "tokenizer_config.json", eos_token=None, pad_token="[PAD]")
    findings, _ = found(tmp_path, store, model)
    notes = "\n".join(words_of(findings, "config", "note"))
    for word in ("output_router_logits: true", "flash_attention_2", "num_beams 4"):
        assert word in notes
    assert len(words_of(findings, "EOS", "note")) == 1
    (padding,) = words_of(findings, "padding", "note")
    assert f"'[PAD]' has id {VOCABULARY}, but the embedding has {VOCABULARY} rows" in padding


def test_windows_and_sequences_say_where_bos_is(tmp_path, store, model):
    adds_bos(model)
    findings, _ = found(tmp_path, store, model)
    assert words_of(findings, "BOS") == ["'w1' (1), begins a text by default"]
    assert words_of(findings, "sequences") == ["4 of up to 16 tokens, 4 begin with BOS"]
    sliding, published = (f for f in findings if f.fact == "windows")
    count = len(range(15, WORDS, 8)) + 1
    assert (sliding.words, sliding.level) == (
        f"{count} of up to 16 tokens from 1 document (records), {count} begin with BOS",
        "fine",
    )
    assert published.level == "note"
    assert published.words.startswith(
        f"{(WORDS + 1) // 16} of up to 16 tokens from 1 document (records), 1 begins with BOS, as"
    )
    asked = ["perplexity.published.bos=window", "corpora.words.bos=none"]
    findings, _ = found(tmp_path, store, model, set_values=asked)
    assert words_of(findings, "sequences") == ["4 of up to 16 tokens, none begins with BOS"]
    count = WORDS // 15
    assert (
        words_of(findings, "windows")[1]
        == f"{count} of up to 16 tokens from 1 document (records), {count} begin with BOS"
    )


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        ("corpora.words.length=65", 5, "sequences of 65 tokens, but the model has 64 positions"),
        ("corpora.words.sequences=13", 5, "13 sequences of 16 tokens (208), but the text has 200"),
        ("perplexity.ppl.window=66", 9, "windows of 65 tokens, but the model has 64 positions"),
        ("perplexity.published.window=300", 10, "has windows of 299 tokens, but the model has 64"),
        ("efficiency={new_tokens: 64}", 2, "new_tokens 64 need 65 positions, but the model has 64"),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(
    tmp_path, store, model, change, line, message
):
    findings, source = found(tmp_path, store, model, set_values=[change])
    with pytest.raises(AdmissionError) as caught:
        refuse(findings, source)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)
    assert f"suite.yaml:{line}:" in str(caught.value)


def test_a_tokenizer_beyond_the_embedding_is_refused(tmp_path, store, model):
    edit(model / "tokenizer_config.json", eos_token="<new>")
    findings, source = found(tmp_path, store, model)
    with pytest.raises(
        AdmissionError, match=r"ids up to 64 \('<new>'\).* embedding has 64 rows"
    ) as told:
        refuse(findings, source)
    assert "\n" not in str(told.value)


def test_an_attention_that_the_class_lacks_is_an_error_at_its_line(tmp_path, store):
    model = save(qwen2_moe(), tmp_path / "model")
    for asked in ("auto", "sdpa", "eager"):
        change = [f"models.it.attention={asked}"]
        findings, _ = found(tmp_path, store, model, set_values=change)
        expected = "sdpa" if asked == "auto" else asked
        assert words_of(findings, "attention") == [f"{expected}, computed in float32"]


FAR = """\
name: tiny
models:
  far:
    hub: no/such
    revision: "0123456789012345678901234567890123456789"
    expect: {layers: 2, experts: 8, top_k: 4, parameters: 900, expert_parameters: 9}
retain: [0.25]
corpora: {bible: {source: {plugin: bible, split: calibration}, sequences: 4, length: 16}}
methods: {reap: {corpora: [bible]}}
perplexity: {ppl: {source: {plugin: wiki, split: evaluation}, window: 16, stride: 8}}
"""


def test_what_needs_no_files_is_looked_at_where_a_model_is_out_of_reach(tmp_path, store):
    path = tmp_path / "suite.yaml"
    path.write_text(FAR)
    suite, source = load_suite(path)
    plan = make_plan(suite, source, load_registry(), store, trust_expected=True)
    found = {(finding.section, finding.fact): finding for finding in admit(plan, store)}
    assert found["models", "files"].words.startswith("not looked at")
    assert found["retain", "experts per token"].words.startswith("2 experts are kept where a")
    assert not {"sequences", "windows", "largest token id"} & {fact for _, fact in found}
