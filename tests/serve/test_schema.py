"""What the OpenAPI document promises, tried by schemathesis: every operation, every check."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from longreach.engine.paged import PagedEngine
from serving import PUMP, Serving

pytest.importorskip("schemathesis")
pytestmark = pytest.mark.thorough


def test_every_operation_answers_as_its_document_says(serving: Serving, tiny: Callable[..., PagedEngine]) -> None:
    with serving(tiny(), {"answer": "generate(max_tokens=4)"}, most_tokens=16) as server, server.http() as client:
        client.post("/v1/libraries", json={"name": "manuals"})
        client.put("/v1/libraries/manuals/documents/pump", json={"text": PUMP})
        server.indexed("manuals", client)
        settings = Path(__file__).with_name("schemathesis.toml")
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(settings), "run"]
        options = ["--max-examples", "20", "--seed", "1", "--generation-database", "none", "--continue-on-failure"]
        phases = ["--phases", "examples,coverage,fuzzing"]
        done = subprocess.run(
            [*command, f"{server.url}/openapi.json", *options, *phases],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, done.stdout[-6000:]
        assert '"status": 500' not in server.log.getvalue()
        assert client.get("/ready").status_code == 200
