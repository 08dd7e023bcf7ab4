"""How long a report takes to write, and how large its page is: many methods, and many tasks.

PYTHONPATH=tests python benchmarks/publishing.py

CPU seconds. Results are stand-ins in the shape of suites/paper.yaml: two models, three budgets,
300 items each.
"again" renders a report from results that are there, as `mbench report` does.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from helpers import synthetic
from mbench.report.publish import publish

SIZES = {"14 methods, 11 tasks": (0, 0), "40 methods": (26, 0), "30 tasks": (0, 19)}
"""Methods and tasks more than the paper's."""


def main() -> None:
    for name, (methods, tasks) in SIZES.items():
        more = {f"method-{n}": ("c4",) for n in range(methods)}
        synthetic.PAPER_METHODS.update(more)
        synthetic.PAPER_TASKS.update({f"task-{n}": "acc" for n in range(tasks)})
        synthetic.paper_sized.cache_clear()
        results = synthetic.paper_sized(items=300)
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report"
            for files, what in (({}, "results and report"), (None, "again")):
                start = time.process_time()
                written = publish(results, report, files=files)
                seconds = time.process_time() - start
                size = written.page.stat().st_size / 1e6
                print(f"{name}, {what}: {seconds:.1f} s, page {size:.2f} MB")
        for own in more:
            del synthetic.PAPER_METHODS[own]


if __name__ == "__main__":
    main()
