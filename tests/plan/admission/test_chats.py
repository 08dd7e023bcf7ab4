"""Prompts in chat templates in a plan: refused before weights, in keys, in words, and in a run."""

from __future__ import annotations

import shutil

import pytest

from helpers.chat_templates import NO_SYSTEM, THINKING, TODAY, TURNS
from helpers.stand_ins import TOKENIZER
from helpers.tiny_suite import go, plan_of
from mbench.core.errors import AdmissionError, SuiteError
from mbench.core.item_texts import from_rows
from mbench.plan.admission.admit import admit, refuse
from mbench.plan.in_words import protocol_in_words
from mbench.plan.suite_file import load_suite

SUITE = """\
name: tiny
models:
  one: {{path: {one}, dtype: float32}}
  two: {{path: {two}, dtype: float32}}
retain: [0.5]
seeds: [0]
methods: {{random: }}
chat: {chat}
tasks:
  cloze_bible: {{limit: 4}}
  cloze_wiki: {{limit: 4}}
  cloze_code: {{limit: 4, chat: {own}}}
"""


@pytest.fixture
def models(tmp_path):
    """The embedded model twice, with such templates."""

    def models(one, two):
        places = {"one": tmp_path / "one", "two": tmp_path / "two"}
        for place, template in zip(places.values(), (one, two), strict=True):
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(TOKENIZER, place)
            if template is not None:
                (place / "chat_template.jinja").write_text(template)
        return places

    return models


def planned(tmp_path, store, models, chat="{}", own="{template: false}"):
    return plan_of(tmp_path, store, SUITE.format(**models, chat=chat, own=own))


def refusals(tmp_path, store, models, chat="{}", own="{template: false}"):
    plan = planned(tmp_path, store, models, chat, own)
    for place in models.values():
        (place / "model.safetensors").write_bytes(b"no weights at all")
    with pytest.raises(AdmissionError) as refusal:
        refuse(admit(plan, store), load_suite(tmp_path / "suite.yaml")[1])
    return str(refusal.value).replace(f"{tmp_path}/suite.yaml:", "").splitlines()


@pytest.mark.parametrize(
    ("template", "chat", "words"),
    [
        (None, "{}", "its tokenizer has no chat template"),
        (TODAY, "{}", "its chat template prints today's date: give `date` in `chat`"),
        (NO_SYSTEM, "{system: Be kind.}", "it takes no system message, but `system` is given"),
        (
            TURNS.replace("messages", "messages[:1]"),
            "{system: Be kind.}",
            "it leaves out what the user",
        ),
        (
            TURNS.replace("messages", "messages[-1:]"),
            "{system: Be kind.}",
            "out what the system says",
        ),
        ("{{ x.y.z }}", "{}", "its chat template says"),
        ("{% for i in range(9999) %}{% for j in range(9999) %}", "{}", "cannot be compiled"),
    ],
)
def test_a_model_that_takes_no_such_prompt_is_refused_once(
    tmp_path, store, models, template, chat, words
):
    (line,) = refusals(tmp_path, store, models(TURNS, template), chat)
    assert line.startswith("4:3: models.two: chat template: ")
    assert words in line
    assert line.endswith("it is asked for by the `chat` of cloze_bible, cloze_wiki")


def test_a_task_that_no_template_applies_to_is_refused_by_name(tmp_path, store, models):
    own = "{options: {enable_thinking: true}}"
    lines = refusals(tmp_path, store, models(THINKING, TURNS), own=own)
    subjects = [f"tasks.cloze_code on {model}" for model in ("one", "two")]
    assert [line.split(": ")[1] for line in lines] == subjects
    assert all("leaves no room for thoughts" in line for line in lines)


def notes(plan, store):
    return {
        (found.subject, found.words)
        for found in admit(plan, store)
        if found.level == "note" and found.fact == "chat template"
    }


def test_what_a_template_does_not_read_is_told(tmp_path, store, models):
    chat = "{options: {enable_thinking: false}, date: 2026-03-05}"
    plan = planned(tmp_path, store, models(THINKING, TODAY), chat)
    assert notes(plan, store) == {
        ("models.one", "it prints no date, so that `date` changes nothing"),
        ("models.two", "it does not read the option 'enable_thinking', which changes nothing"),
        *(
            (
                f"tasks.cloze_code on {model}",
                "the tokenizer has one; it is not applied, as in lm-eval by default",
            )
            for model in ("one", "two")
        ),
    }


def keys(tmp_path, store, models, *chats):
    plan = planned(tmp_path, store, models, *chats)
    one, two = plan.models
    return {
        task.name: (
            plan.evaluation_key(one, one.unpruned_mask.content_hash, "sliced", task).digest,
            plan.task_size_key(one, task).digest,
            plan.item_texts_key(one, task).digest,
            plan.item_texts_key(two, task).digest,
        )
        for task in plan.tasks
    }


def test_all_that_decides_a_prompt_is_in_the_keys(tmp_path, store, models):
    with_template = models(TURNS, THINKING)
    plain = keys(tmp_path, store, with_template, "null", "null")
    chats = [
        "{}",
        "{system: Be kind.}",
        "{multiturn: false}",
        "{options: {enable_thinking: false}}",
        "{options: {enable_thinking: 0}}",
        "{date: 2026-03-05}",
    ]
    found = [keys(tmp_path, store, with_template, chat) for chat in chats]
    for of_task in zip(*(each["cloze_bible"] for each in (plain, *found)), strict=True):
        assert len(set(of_task)) == len(of_task)
    # Without one, as if there were no such key; with lm-eval's default, as if it were left out.
    assert all(each["cloze_code"] == plain["cloze_code"] for each in found)
    assert keys(tmp_path, store, with_template, "{multiturn: true}") == found[0]
    # A task's own replaces the suite's as a whole.
    own = keys(tmp_path, store, with_template, "null", "{}")
    both = keys(tmp_path, store, with_template, "{system: Be kind.}", "{}")
    assert both == {**found[1], "cloze_code": own["cloze_code"]}
    # What items ask is one thing for all models but in their own templates.
    assert plain["cloze_bible"][2] == plain["cloze_bible"][3]
    assert found[0]["cloze_bible"][2] != found[0]["cloze_bible"][3]


@pytest.mark.parametrize(
    "file",
    ["chat_template.jinja", "chat_template.json", "additional_chat_templates/tool_use.jinja"],
)
def test_a_template_is_part_of_a_models_identity(tmp_path, store, models, file):
    places = models(TURNS, TURNS)
    before = planned(tmp_path, store, places).models[1]
    (places["two"] / file).parent.mkdir(exist_ok=True)
    (places["two"] / file).write_text(TURNS + " ")
    after = planned(tmp_path, store, places).models[1]
    assert before.key != after.key
    assert before.identity.content != after.identity.content


def test_the_protocol_says_it_in_words(tmp_path, store, models):
    chat = "{system: Be kind., options: {enable_thinking: false}, date: 2026-03-05}"
    plan = planned(tmp_path, store, models(THINKING, TODAY), chat, "{multiturn: false}")
    words = {entry.name: entry.text for entry in protocol_in_words(plan.suite, plan.corpora)}
    assert words["Task cloze_bible"].endswith(
        "; prompts are put into the model's chat template, system message 'Be kind.',"
        " enable_thinking false, date 2026-03-05, examples as turns"
    )
    assert words["Task cloze_code"].endswith(
        "; prompts are put into the model's chat template, examples as one message"
    )


def test_a_date_is_a_date(tmp_path, store, models):
    for written, right in (("2026-03-05", True), ("'2026-03-05'", True), ("tomorrow", False)):
        chat = f"{{date: {written}}}"
        if right:
            plan = planned(tmp_path, store, models(TURNS, TURNS), chat)
            assert plan.tasks[0].chat.parts()["date"] == "2026-03-05"
        else:
            with pytest.raises(SuiteError, match=r"chat\.date"):
                planned(tmp_path, store, models(TURNS, TURNS), chat)


def test_a_run_asks_each_model_in_its_own_template(tmp_path, store, models):
    plan = planned(tmp_path, store, models(TURNS, THINKING), "{options: {enable_thinking: false}}")
    outcome, _ = go(plan, store)
    assert not outcome.task_problems
    task = plan.tasks[0]
    ends = []
    for model in plan.models:
        rows = store.read_json(plan.item_texts_key(model, task))
        ends.append({text.prompt.rpartition("<|im_start|>")[2] for text in from_rows(rows)})
    assert ends == [{"assistant\n"}, {"assistant\n<think>\n\n</think>\n\n"}]
