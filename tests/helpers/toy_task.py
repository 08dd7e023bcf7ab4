"""A task of four questions in a file of its own, and it made ready."""

import json
from pathlib import Path

from helpers.lm_eval_runs import toy_tokenizer, write
from mbench.core.suite import LmEvalTask

TOY = LmEvalTask(task="toy")


ITEMS = [
    {"q": "the cat sat on", "choices": ["the mat", "a dog ran home", "it"], "answer": 0},
    {"q": "birds fly", "choices": ["south", "south", "under the sea in winter"], "answer": 2},
    {"q": "rain falls from", "choices": ["clouds", "stones", "a cup of tea"], "answer": 0},
    {"q": "fish swim in", "choices": ["the sky", "the river and the sea", "sand"], "answer": 1},
]


CHOICE = """
    task: toy
    dataset_path: json
    dataset_kwargs: {data_files: {test: toy.jsonl}}
    output_type: multiple_choice
    test_split: test
    doc_to_text: "Q: {{q}}\\nA:"
    doc_to_choice: "{{choices}}"
    doc_to_target: answer
    metric_list:
      - {metric: acc, aggregation: mean, higher_is_better: true}
      - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""


def made_ready(folder, tokenizer, spec=TOY, max_length=512):
    from mbench.evaluate.lm_eval.prepared_task import prepare

    return prepare(spec.task, spec, [folder], tokenizer, max_length=max_length)


def tokenizer_of_words():
    """That knows the words of the questions."""
    text = [part for item in ITEMS for part in [item["q"], *item["choices"]]]
    return toy_tokenizer([*text, Path(__file__).read_text()])


def write_task(tmp_path):
    """A folder with the task, its data in the folder above."""
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tmp_path / "toy.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    write(tasks / "toy.yaml", CHOICE)
    return tasks
