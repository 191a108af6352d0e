"""Results as one Parquet table: a row for every question that was answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_parquet(file: Path, lines: Sequence[Mapping[str, Any]], provenance: Mapping[str, Any]) -> None:
    """Write lines of results: task, example, question, text, score, costs, `metric.*` for each metric and
    `configuration.*` for each column. `provenance` becomes the metadata `longreach` of the file, in JSON."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [_row(line, number) for line in lines for number in range(len(line["questions"]))]
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    told = {**(table.schema.metadata or {}), b"longreach": json.dumps(provenance, ensure_ascii=False).encode()}
    file.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table.replace_schema_metadata(told), file)


def _row(line: Mapping[str, Any], number: int) -> dict[str, Any]:
    asked = line["questions"][number]
    scores = {name: float(value) for name, value in asked["scores"].items()}
    return {
        "run": line.get("run", ""),
        "task": line["task"],
        "example": line["example"],
        "question": number,
        "text": asked["text"],
        "answers": list(asked["answers"]),
        "score": next(iter(scores.values())),
        **{f"cost.{name}": value for name, value in asked["cost"].items()},
        **{f"metric.{name}": value for name, value in scores.items()},
        **{f"configuration.{name}": str(value) for name, value in line["configuration"].items()},
    }
