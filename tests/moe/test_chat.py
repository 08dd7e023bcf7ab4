"""Chat templates: rendered as transformers does it, at a pinned date, and bounded."""

from __future__ import annotations

import datetime
import time

import pytest
import transformers.utils.chat_template_utils as library
from transformers import AutoTokenizer

from helpers.chat_templates import A_DAY, BOS, NO_SYSTEM, OWN_SYSTEM, THINKING, TODAY, TURNS
from helpers.hostile_templates import HOSTILE
from helpers.stand_ins import TOKENIZER
from mbench.core.chat import ChatSpec
from mbench.core.errors import ChatError
from mbench.moe.chat.template import ChatTemplate, TemplateRefusal

USER = {"role": "user", "content": " Who?"}
SYSTEM = {"role": "system", "content": "Be brief."}
BEGUN = {"role": "assistant", "content": "It is "}
DAY = datetime.date(2026, 3, 5)


class Fifth(datetime.datetime):
    """A clock that stands still on `DAY`."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 3, 5)


@pytest.fixture
def tokenizer():
    def with_template(template):
        return AutoTokenizer.from_pretrained(TOKENIZER, chat_template=template)

    return with_template


@pytest.mark.parametrize("template", [TURNS, BOS, OWN_SYSTEM, THINKING, TODAY])
@pytest.mark.parametrize("options", [{}, {"enable_thinking": False}])
@pytest.mark.parametrize("messages", [[USER], [SYSTEM, USER], [SYSTEM, USER, BEGUN]])
def test_what_is_rendered_equals_transformers_on_that_day(
    tokenizer, monkeypatch, template, options, messages
):
    ends = messages[-1] is BEGUN
    given = tokenizer(template)
    ours = ChatTemplate(given, ChatSpec(options=options, date=DAY)).render(
        messages, add_generation_prompt=not ends, continue_final_message=ends
    )
    monkeypatch.setattr(library, "datetime", Fifth)
    theirs = given.apply_chat_template(
        messages,
        tokenize=False,
        add_generation_prompt=not ends,
        continue_final_message=ends,
        **options,
    )
    assert ours == theirs


def test_a_template_that_prints_today_needs_a_date(tokenizer):
    given = tokenizer(TODAY)
    with pytest.raises(ChatError, match="prints today's date: give `date`"):
        ChatTemplate(given, ChatSpec()).render([USER])
    assert "Today Date: 05 Mar 2026\n" in ChatTemplate(given, ChatSpec(date=DAY)).render([USER])
    own = ChatSpec(options={"date_string": "a day"})
    assert "Today Date: a day\n" in ChatTemplate(given, own).render([USER])


def test_a_clock_that_decides_nothing_is_no_date(tokenizer):
    given = tokenizer("{% set now = strftime_now('%Y') %}" + TURNS)
    assert ChatTemplate(given, ChatSpec()).render([USER]).startswith("<|im_start|>user")


def test_a_template_with_a_date_of_its_own_is_told_the_date(tokenizer):
    given = tokenizer(A_DAY)
    assert "26 Jul 2024" in ChatTemplate(given, ChatSpec()).render([USER])
    assert "05 Mar 2026" in ChatTemplate(given, ChatSpec(date=DAY)).render([USER])


def test_an_option_that_the_template_does_not_read_is_known(tokenizer):
    options = {"enable_thinking": False, "date_string": "x", "mood": "bad"}
    template = ChatTemplate(tokenizer(THINKING + TODAY), ChatSpec(options=options))
    assert template.unread == ("mood",)


def test_a_system_message_that_is_refused_is_told_from_failures(tokenizer):
    template = ChatTemplate(tokenizer(NO_SYSTEM), ChatSpec())
    with pytest.raises(TemplateRefusal, match="System role not supported"):
        template.render([SYSTEM, USER])
    with pytest.raises(ChatError, match="ZeroDivisionError") as failure:
        ChatTemplate(tokenizer("{{ 1 / 0 }}"), ChatSpec()).render([USER])
    assert not isinstance(failure.value, TemplateRefusal)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "has no chat template"),
        ("", "has no chat template"),
        ({"tool_use": TURNS, "rag": TURNS}, "no default: rag, tool_use"),
        ("{% if", "cannot be compiled"),
    ],
)
def test_a_template_that_is_none_is_refused(tokenizer, template, words):
    with pytest.raises(ChatError, match=words):
        ChatTemplate(tokenizer(template), ChatSpec())


def test_of_several_templates_the_default_is_taken(tokenizer):
    given = tokenizer({"tool_use": "x", "default": TURNS})
    assert ChatTemplate(given, ChatSpec()).render([USER]).startswith("<|im_start|>user")


@pytest.mark.parametrize("option", ["tokenize", "messages", "chat_template"])
def test_an_option_cannot_change_how_it_is_rendered(tokenizer, option):
    with pytest.raises(ChatError, match=option):
        ChatTemplate(tokenizer(TURNS), ChatSpec(options={option: "x"}))


@pytest.mark.parametrize("template", HOSTILE)
def test_a_hostile_template_ends_soon_with_one_line(tokenizer, template):
    chat = ChatSpec(options={"q": "the cat", "choices": "ab"})
    started = time.process_time()
    try:
        said = ChatTemplate(tokenizer(template), chat).render([USER])
    except ChatError as error:
        said = str(error)
    # What is not there is empty in chat templates, and no error.
    assert "\n" not in said
    assert time.process_time() - started < 30  # one at most, on an idle core
