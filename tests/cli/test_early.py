"""`--precision` and `--hours`, as a user gives them, and as the Python API takes them."""

import pytest

import mbench
from helpers.command import call
from mbench.core.errors import MbenchError

SUITE = """\
name: small
models:
  demo: {plugin: demo, dtype: float32}
retain: [0.75]
corpora:
  bible: {source: {plugin: bible, split: calibration}, sequences: 4, length: 32}
methods:
  reap: {corpora: [bible]}
tasks:
  cloze_bible: {metric: acc, limit: 300}
"""


def test_a_run_says_from_how_many_items_a_figure_is(tmp_path):
    (tmp_path / "small.yaml").write_text(SUITE)
    words = ("run", "small.yaml", "--output", "reports")
    done = call(*words, "--precision", "0.2", cwd=tmp_path, store=tmp_path / "store")
    assert done.returncode == 0, done.stderr
    assert "180 of 300" in done.stdout + done.stderr
    done = call(*words, cwd=tmp_path, store=tmp_path / "store")
    assert done.returncode == 0
    assert "of 300" not in done.stdout + done.stderr


@pytest.mark.parametrize("option", ["precision", "hours"])
def test_what_is_no_positive_number_is_refused(option, tmp_path):
    (tmp_path / "small.yaml").write_text(SUITE)
    done = call("run", "small.yaml", f"--{option}", "0", cwd=tmp_path, store=tmp_path / "store")
    assert done.returncode == 2
    assert f"{option} takes a number above 0, got 0" in done.stderr
    with pytest.raises(MbenchError, match=f"{option} takes a number above 0, got -1"):
        mbench.run(tmp_path / "small.yaml", store=tmp_path / "store", **{option: -1})
