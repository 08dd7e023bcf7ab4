"""What leaves the program: readable as it was, without controls, credentials and the user."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from markupsafe import Markup

from mbench.core.clean_text import cleaned, redacted, restored, visible


@pytest.mark.parametrize(
    "text",
    ["plain", "Größe 中文 \N{GRINNING FACE}\N{ZERO WIDTH JOINER}\N{FIRE}", "two\nlines\tand a tab"],
)
def test_ordinary_text_stays_the_same(text):
    assert visible(text) is text or visible(text) == text
    assert cleaned(text) is text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\rb\x00\x7f\x9b", r"a\x0db\x00\x7f\x9b"),
        ("\u202eabc\u2066\u200f\u061c", r"\u202eabc\u2066\u200f\u061c"),
        ("a\u2028b\u2029c\x85d\x0be", r"a\u2028b\u2029c\x85d\x0be"),
        ("half \ud83d", r"half \ud83d"),
        ("from Windows\r\n", "from Windows\n"),
    ],
)
def test_controls_are_visible(text, shown):
    assert visible(text) == shown


@pytest.fixture
def user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "ada"))
    monkeypatch.setenv("USER", "lovelace")
    monkeypatch.setenv("HF_TOKEN", "quite-plain-words")
    monkeypatch.setenv("DB_PASSWORD", "hunter2!")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("HOME/suites/a.yaml:3", "~/suites/a.yaml:3"),
        ("in HOME.", "in ~."),
        ("file://HOME/x and 'HOME'", "file://~/x and '~'"),
        ("HOME2/a", "HOME2/a"),
        ("/scratch/lovelace/models", "/scratch/USER/models"),
        (
            "by lovelace/model of https://hub/lovelace/x",
            "by lovelace/model of https://hub/lovelace/x",
        ),
        ("https://ada:pw@host/x?token=abc&n=1", "https://***@host/x?token=***&n=1"),
        ("hf_abcDEF1234 sk-proj-Ab1_9x", "*** ***"),
        ("hf_transfer, sk-learn, task-AB12cd34", "hf_transfer, sk-learn, task-AB12cd34"),
        ("Authorization: Bearer abc.def.ghi", "Authorization: Bearer ***"),
        ("quite-plain-words, false, hunter2!", "***, false, ***"),
        ("pad_token=5 of 300 tokens", "pad_token=5 of 300 tokens"),
    ],
)
def test_credentials_home_and_name_are_hidden(user, text, shown):
    home = str(user / "home" / "ada")
    assert redacted(text.replace("HOME", home)) == shown.replace("HOME", home)


def test_a_redacted_place_is_found_again(user):
    for place in (user / "home" / "ada" / "models", user / "scratch" / "lovelace" / "models"):
        place.mkdir(parents=True)
        assert "ada" not in redacted(str(place))
        assert "lovelace" not in redacted(str(place))
        assert restored(redacted(str(place))) == str(place)


@dataclass(frozen=True)
class Holder:
    name: str
    parts: tuple[object, ...]


def test_values_are_cleaned_inside_and_what_is_clean_stays_the_same_object(user):
    clean = {"a": Holder("x", (1, None, [2.5]))}
    assert cleaned(clean) is clean
    mixed = {"\x1b": [Holder("\u202e", (clean, "ok", Markup("<b>\x07</b>")))]}
    made = cleaned(mixed)
    holder = made[r"\x1b"][0]
    assert holder.name == r"\u202e"
    assert holder.parts[0] is clean
    assert holder.parts[2] == Markup(r"<b>\x07</b>")
    assert isinstance(holder.parts[2], Markup)
