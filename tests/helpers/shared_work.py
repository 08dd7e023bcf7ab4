"""A suite whose work several processes share."""

from __future__ import annotations

SUITE = """\
name: shared
models: {{demo: {{plugin: demo, dtype: float32}}}}
retain: {retain}
seeds: {seeds}
corpora:
  text: {{source: {source}, sequences: 4, length: 64}}
calibration: [text]
methods: {{random: , reap: {methods}}}
tasks:
  cloze_bible: {{metric: acc, limit: {limit}}}
  cloze_wiki: {{metric: acc, limit: {limit}}}
"""
WIKI = "{plugin: wiki, split: calibration}"


def suite(methods="", retain=(0.25, 0.5), seeds=3, limit=10, source=WIKI) -> str:
    """Its text; `methods` are beside random pruning and REAP."""
    return SUITE.format(
        methods=f", {methods}" if methods else "",
        retain=list(retain),
        seeds=seeds,
        limit=limit,
        source=source,
    )
