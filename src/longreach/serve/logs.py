"""Logs: one JSON object a line, without anything that people asked or documents say."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TextIO


class AsJson(logging.Formatter):
    """`time` (UTC), `level`, `event`, and the record's `fields`. Of an exception, its type and where it was raised: its
    message may quote a document."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error, trace = record.exc_info[1], record.exc_info[2]
            frames = []
            while trace is not None:
                frames.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
                trace = trace.tb_next
            line |= {"error": type(error).__name__, "at": frames[-8:]}
        return json.dumps(line, ensure_ascii=True)


def make_log(stream: TextIO | None = None) -> logging.Logger:
    """A logger of its own that writes to `stream`, by default standard error."""
    log = logging.Logger("longreach.serve", logging.INFO)
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(AsJson())
    log.addHandler(handler)
    return log
