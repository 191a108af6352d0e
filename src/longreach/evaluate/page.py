"""The frontier as one web page that needs nothing else: hover over a mark to see what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from longreach.evaluate.families import colours, family
from longreach.evaluate.frontier import Mark
from longreach.evaluate.run import shown


def write_page(file: Path, marks: Sequence[Mark], provenance: Mapping[str, Any]) -> None:
    """Write the page: a figure a task, with a choice of the axis, the table, and what it was taken on."""
    palette = colours(marks)
    data = [{**mark.as_object(), "shown": shown(mark.task), "colour": palette[family(mark)]} for mark in marks]
    # Within a script, only "</" could end it early.
    told = json.dumps({"marks": data, "families": palette}, ensure_ascii=False).replace("</", "<\\/")
    frame = files("longreach.evaluate").joinpath("page.html").read_text(encoding="utf-8")
    page = frame.replace("{{provenance}}", escape(json.dumps(provenance, ensure_ascii=False, indent=1)))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page.replace("{{data}}", told), encoding="utf-8")
