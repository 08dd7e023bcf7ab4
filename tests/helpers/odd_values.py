"""Valid files with mistakes put in at random: of structure, of value, and of single bytes."""

from __future__ import annotations

import contextlib
import json
import signal
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st


@dataclass(frozen=True)
class Raw:
    """YAML or JSON that is written as it is."""

    text: str


def bomb(levels: int = 9) -> str:
    """A few hundred characters that stand for 9 ** levels values."""
    lists = ["&l0 [lol, lol]"]
    lists += [f"&l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, levels)]
    return f"[{', '.join(lists)}]"


SCALARS: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1.5, 10**12, -(10**12), 2**63, 2**64, 10**400),
    *("", " ", "x", "..", ".", "/", "a/b", "con", "NUL", "~", "~nobody/x", "$HOME", "-", "--help"),
    *("\u0430", "ﬁ", "a b", "a\nb", "\x1b[31m", "\x7f", "\u202e", "\u2028", "\ud800", "\0"),
    *("x" * 81, "x" * 300, "x" * 5000, "../" * 40, "{{ x }}", "%s%n", "1e3", "null", "none"),
]
RAW = [
    *(".nan", ".inf", "-.inf", "1e400", "1e12", "1e-400", "9" * 5000, "1" + "0" * 400),
    *("0x1F", "0o17", "0b1", "017", "1_000", "+1", "-0", "1.", ".5", "1:30", "190:20:30"),
    *("2020-01-01", "2020-13-45", "2020-01-01T25:61:61Z", "2001-12-14t21:59:43.10-05:00"),
    *("yes", "no", "on", "~", "null", "<<", "=", "!", "!x y", "!x [a]", "!x {a: b}", "!!str 5"),
    *("!!int abc", "!!int ''", "!!float ''", "!!bool x", "!!null x", "!!timestamp x"),
    *("!!binary abc", "!!binary 'YQ=='", "!!set {a, b}", "!!omap [a: 1]", "!!pairs [a: 1]"),
    *("!!python/object/apply:os.system [x]", "!!python/name:os.system", "!!map [a]", "!!seq {}"),
    *("{? [a] : b}", "{[a]: b}", "{{a: b}: c}", "{1: a}", "{null: a}", "{true: a}", "{.nan: a}"),
    *("{<<: {a: b}}", "{<<: 3}", "{<<: [3]}", "{<<: [{a: b}, {c: d}]}", "{<<: null}"),
    *("{a: 1, a: 2}", "{2020-01-01: a}", "{'': a}", '"\\ud800"', '"\\ud83d\\ude00"', '"\\0"'),
    *("&a [*a]", "&a {a: *a}", "&a {<<: *a}", "*a", "&a x", "&a [&a [*a]]", "[&b {x: 1}, *b]"),
    *("[" * 60 + "]" * 60, "[" * 1500, "{a: " * 60 + "}" * 60, "- " * 80, "[" * 5000 + "]" * 5000),
    *(bomb(), bomb(30), "[" + "x," * 3000 + "]", '"\\e[31m"', '"\\x07"', "|\n  a\n  b", ">-\n  a"),
    *("[]", "{}", "[[]]", "[{}]", "[null]", "[1, true, x]", "''", '""', "a: b", "- a", "? a", "@x"),
]

odd_values = st.one_of(
    st.sampled_from(SCALARS),
    st.sampled_from(RAW).map(Raw),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.lists(st.sampled_from(SCALARS[:20]), max_size=3),
    st.dictionaries(st.sampled_from(["a", "name", "", "1", "x" * 90]), st.integers(), max_size=2),
)
odd_keys = st.one_of(
    st.sampled_from(["a", "", " ", "<<", "name", "x" * 300, "A/b", "..", "\u0430", "é", "\x1b"]),
    st.sampled_from(["[a]", "{a: b}", "1", "null", "true", "1.5", "2020-01-01", "!x y"]).map(Raw),
    st.text(max_size=6),
)


def places(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a tree stand, its root left out."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*above, key)
        if isinstance(value, dict | list):
            yield from places(value, (*above, key))


@st.composite
def with_mistakes(
    draw: Any, tree: Any, most: int = 3, values: st.SearchStrategy[Any] = odd_values
) -> Any:
    """The tree with up to so many values changed, taken out, moved, or put in."""
    tree = deepcopy(tree)
    for _ in range(draw(st.integers(1, most))):
        known = list(places(tree))
        if not known:
            break
        place = draw(st.sampled_from(known))
        holder = tree
        for key in place[:-1]:
            holder = holder[key]
        kind = draw(st.sampled_from(["value", "value", "value", "delete", "key", "insert", "copy"]))
        if kind == "value":
            holder[place[-1]] = draw(values)
        elif kind == "delete":
            del holder[place[-1]]
        elif kind == "copy":
            other = tree
            for key in draw(st.sampled_from(known)):
                other = other[key]
            holder[place[-1]] = deepcopy(other)
        elif isinstance(holder, list):
            holder.insert(place[-1], draw(values))
        elif kind == "key":
            value = holder.pop(place[-1])
            near = st.sampled_from([f"{place[-1]}s", str(place[-1])[1:], str(place[-1]).upper()])
            holder[draw(odd_keys | near)] = value
        else:
            holder[draw(odd_keys)] = draw(values)
    return tree


def flow(tree: Any) -> str:
    """YAML in one line; JSON, but for what `Raw` holds."""
    if isinstance(tree, Raw):
        return tree.text
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{flow(key)}: {flow(value)}" for key, value in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(flow, tree)) + "]"
    if isinstance(tree, float):
        return {"nan": ".nan", "inf": ".inf", "-inf": "-.inf"}.get(repr(tree), repr(tree))
    if isinstance(tree, int) and not isinstance(tree, bool):
        return str(tree)
    return json.dumps(tree)


def block(tree: dict[Any, Any]) -> str:
    """YAML with a line for every key of the first two levels."""
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines += [f"{flow(key)}:", *(f"  {flow(k)}: {flow(v)}" for k, v in value.items())]
        else:
            lines.append(f"{flow(key)}: {flow(value)}")
    return "\n".join(lines) + "\n"


SNIPPETS = [
    *("\t", "\r", "\r\n", "\0", "\x07", "\x1b[2J", "\x85", "\u2028", "\ufeff", "\ufffe", "\ud800"),
    *(
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        ": ",
        "- ",
        "? ",
        "#",
        "'",
        '"',
        "|",
        ">",
        "&a ",
        "*a",
        "<<: *a",
    ),
    *(
        "---\n",
        "...\n",
        "%YAML 1.1\n---\n",
        "%YAML 9.9\n---\n",
        "%TAG ! !x\n---\n",
        "!!python/name:os ",
    ),
    *("\n", "\n\n", "  ", "@", "`", "\\", "\n  x: y\n", "\n- x\n", "{{", "}}", "{%", "%}"),
]


@st.composite
def with_damage(draw: Any, text: str, most: int = 4) -> bytes:
    """The text with pieces put in, taken out or repeated; sometimes in another encoding."""
    for _ in range(draw(st.integers(1, most))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 30)))
        kind = draw(st.sampled_from(["insert", "insert", "delete", "repeat", "cut"]))
        if kind == "insert":
            text = text[:start] + draw(st.sampled_from([*SNIPPETS, *RAW])) + text[start:]
        elif kind == "delete":
            text = text[:start] + text[end:]
        elif kind == "repeat":
            text = text[:end] + text[start:end] * draw(st.integers(1, 3)) + text[end:]
        elif draw(st.integers(0, 9)) == 0:
            text = text[:start]
    encoding = draw(st.sampled_from(["utf-8"] * 8 + ["utf-8-sig", "utf-16", "latin-1"]))
    return text.encode(encoding, "surrogatepass" if encoding != "latin-1" else "replace")


class TooLong(BaseException):
    """Derived from what no code catches by accident."""


@contextlib.contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Raise `TooLong` inside once this process has computed for so long."""

    def stop(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def places_of_errors(error: BaseException) -> str:
    """The innermost functions of a traceback."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return " < ".join(f"{Path(each.filename).name}:{each.lineno}" for each in frames[::-1])


@dataclass
class Trials:
    """What came of many inputs."""

    tried: int = 0
    outcomes: Counter[Any] = field(default_factory=Counter)
    problems: dict[str, list[Any]] = field(default_factory=dict)
    """What went wrong -> the inputs."""

    def report(self) -> str:
        """The problems, the most frequent first, each with its shortest input."""
        lines = [f"{self.tried} tried, {dict(self.outcomes)}"]
        for problem, inputs in sorted(self.problems.items(), key=lambda item: -len(item[1])):
            lines += [f"{len(inputs)} x {problem}", f"    {min(map(repr, inputs), key=len)[:1500]}"]
        return "\n".join(lines)


def try_many(
    inputs: st.SearchStrategy[Any],
    attempt: Callable[[Any], tuple[Any, str | None]],
    examples: int,
    repeatable: bool = True,
) -> Trials:
    """Try inputs; `attempt` returns the outcome's kind, and what is wrong with it or None.

    Goes on after a problem, so that one run shows all kinds of them; repeatable: the same inputs
    at every call.
    """
    trials = Trials()

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=repeatable,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def attempted(given_input: Any) -> None:
        outcome, problem = attempt(given_input)
        trials.tried += 1
        trials.outcomes[outcome] += 1
        if problem is not None:
            trials.problems.setdefault(problem, []).append(given_input)

    attempted()
    return trials
