"""Templates of tasks that are wrong, never end, grow without bounds, or reach for Python."""

from __future__ import annotations

DOUBLING = """{% set n = namespace(x='ab') %}
{% for i in range(60) %}{% set n.x = n.x OPERATOR n.x %}{% endfor %}"""
HOSTILE = [
    *("{{", "{% if %}", "{{ q", "{{ q | no }}", "{{ q.x.y }}", "{{ 1 / 0 }}", "{{ choices[9] }}"),
    *("{{ 'a' * 10**10 }}", "{{ [1] * 10**10 }}", "{{ 10 ** (10 ** 10) }}", "{{ q.__class__ }}"),
    *("{{ range(10**9) | list }}", "{% include 'x' %}", "{% import 'os' as o %}", "{{ q() }}"),
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ q * 1000 }}{% endfor %}",
    *("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ '%999999999d' % 1 }}"),
    "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    *(DOUBLING.replace("OPERATOR", "~"), DOUBLING.replace("OPERATOR", "+")),
    *("{{ 'a'.ljust(10**10) }}", "{{ '{:>9999999999}'.format(1) }}", "{{ q|center(10**9) }}"),
    *(
        "{{ '{:{w}}'.format(1, w=10**10) }}",
        "{{ '%*d' % (10**10, 1) }}",
        "{{ '%999999999d'|format(1) }}",
    ),
    *("{{ [1, 2]|batch(10**9, 'x')|list }}", "{{ choices|tojson(indent=10**9) }}"),
    *(
        "{{ ('a' * 999999).replace('', 'b' * 999999) }}",
        "{{ ('a' * 999999)|replace('', 'b' * 999999) }}",
    ),
    *("{{ ''.join(['a' * 999999] * 9999) }}", "{{ (['a' * 999999] * 9999)|join }}"),
]
