"""A template of a task ends soon in little memory, and gives what lm-eval's own rendering gives."""

from __future__ import annotations

import time
import tracemalloc

import lm_eval.utils
import pytest

from helpers.hostile_templates import HOSTILE
from mbench.evaluate.lm_eval.sandbox import TEMPLATES

DOCUMENT = {"q": "the cat", "choices": ["a", "b"], "answer": 0, "n": 12345678901}


@pytest.mark.parametrize("template", HOSTILE)
def test_a_hostile_template_fails_soon(template):
    started = time.process_time()
    tracemalloc.start()
    with pytest.raises(Exception, match=r"\w"):
        TEMPLATES.from_string(template).render(**DOCUMENT)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - started < 30  # one at most, on an idle core
    assert most < 2e8


@pytest.mark.parametrize(
    "template",
    [
        "{{ q }}: {{ choices|join(', ') }} {{ ', '.join(choices) }} {{ q ~ ' ' ~ answer ~ n }}",
        "{% for c in choices %}{{ loop.index }}/{{ loop.length }} {{ c }}"
        "{{ ', ' if not loop.last }}{% else %}none{% endfor %}",
        "{% for c in [] %}{{ c }}{% else %}none{% endfor %}",
        "{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }}{% endfor %}",
        "{{ 'abc'.replace('b', 'x') }}{{ q|replace('t', 'T') }}{{ q.upper() }}{{ q|center(20) }}|",
        "{{ '%05d' % 12 }}{{ '%d' % n }}{{ '{:>5} {}'.format('a', n) }}{{ '%s-%s'|format(q, n) }}",
        "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(q) }}{{ 1.5 + 2 }}{{ 2 ** 10 }}{{ [1] * 3 }}",
        "{{ 7 % 3 }}{{ [1] + [2] }}{{ n * 2 }}{{ {'a': 1}|tojson(indent=2) }}",
        "{{ choices|map('upper')|list }}",
        "{%- set l = 'AB' -%}{% for c in choices %}{{ l[loop.index0] }}. {{ c }}\\n{% endfor %}",
    ],
)
def test_a_plain_template_gives_what_lm_eval_gives(template):
    expected = lm_eval.utils.env.from_string(template).render(**DOCUMENT)
    assert TEMPLATES.from_string(template).render(**DOCUMENT) == expected
