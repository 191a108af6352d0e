"""Runs a task with a respondent that takes its time, as a process of its own: python counting.py TASK RESULTS SECONDS.

Each example that is begun is told on standard output.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from longreach.evaluate.baselines import Guesser
from longreach.evaluate.results import Results
from longreach.evaluate.run import run
from longreach.evaluate.tasks import Example, Task, tasks


class Slow(Guesser):
    """Answers after a while."""

    def __init__(self, task: Task, seconds: float) -> None:
        super().__init__(task)
        object.__setattr__(self, "seconds", seconds)

    def respond(self, example: Example):
        print(example.id, flush=True)
        time.sleep(self.seconds)
        return super().respond(example)


def main(spec: str, file: str, seconds: str) -> None:
    task = tasks.make(spec, count=lambda text: len(text) // 4)
    with Results(Path(file)) as results:
        run(task, Slow(task, float(seconds)), results)


if __name__ == "__main__":
    main(*sys.argv[1:])
