"""Clients that people have, unchanged. They cannot live beside this project's own dependencies: LONGREACH_CLIENTS names
the `python` of another environment, with `llm` and `llama-index-llms-openai-like` in it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving import Running, Scripted, Serving

pytestmark = pytest.mark.thorough
SAID = Scripted().text
LLAMA_INDEX = """
import sys
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

talk = [ChatMessage(role="user", content="What is the torque limit?")]
for chats in (True, False):
    model = OpenAILike(
        model="scripted", api_base=sys.argv[1], api_key="none", is_chat_model=chats, context_window=2000, max_tokens=20
    )
    print(model.complete("What is the torque limit?").text)
    print("".join(part.delta or "" for part in model.stream_complete("What is the torque limit?")))
    print(model.chat(talk).message.content)
    print("".join(part.delta or "" for part in model.stream_chat(talk)))
"""


@pytest.fixture
def client() -> Callable[..., str]:
    """Runs the other environment's Python."""
    python = os.environ.get("LONGREACH_CLIENTS")
    if python is None:
        pytest.skip("LONGREACH_CLIENTS does not name an environment with the clients")

    def run(*arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [python, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def server(serving: Serving) -> Iterator[Running]:
    with serving(Scripted(), {"model": "scripted", "answer": "generate"}) as found:
        yield found


def test_llama_index_completes_and_chats_whole_and_streamed(client: Callable[..., str], server: Running) -> None:
    said = client("-c", LLAMA_INDEX, f"{server.url}/v1").splitlines()
    assert [line.strip() for line in said] == [SAID] * 8


def test_llm_asks_whole_and_streamed(client: Callable[..., str], server: Running, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: here\n  model_name: scripted\n  api_base: {server.url}/v1\n"
    )
    home = {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    for options in ([], ["--no-stream", "-o", "temperature", "0.5", "-o", "seed", "3", "-o", "max_tokens", "9"]):
        assert client("-m", "llm", "-m", "here", *options, "What is the torque limit?", **home).strip() == SAID
