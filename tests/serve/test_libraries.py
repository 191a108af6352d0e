"""Libraries, documents, search and answers over HTTP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from hashed import open_hashed
from serving import PUMP, Running, Scripted, Serving


@pytest.fixture
def client(shared: Running) -> httpx.Client:
    return shared.http()


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    found = []
    for block in response.text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines.get("event", ""), json.loads(lines["data"])))
    return found


def test_a_library_is_made_filled_searched_and_deleted(client: httpx.Client, shared: Running) -> None:
    made = client.post("/v1/libraries", json={"name": "notes"})
    assert (made.status_code, made.json()["documents"]) == (201, 0)
    assert client.post("/v1/libraries", json={"name": "notes"}).status_code == 409
    taken = client.post(
        "/v1/libraries/notes/documents",
        files={"file": ("lake.md", "# Lakes\n\nBaikal is the deepest lake.\n")},
        data={"metadata": '{"kind": "atlas"}'},
    )
    assert taken.status_code == 202
    assert shared.indexed("notes")[0]["status"] == "done"
    assert client.get("/v1/libraries/notes").json()["documents"] == 1
    shown = client.get("/v1/libraries/notes/documents/lake.md").json()
    assert shown["metadata"]["kind"] == "atlas"
    hit = client.post("/v1/libraries/notes/search", json={"query": "deepest lake", "k": 3}).json()["hits"][0]
    assert shown["text"][hit["start"] : hit["end"]] == hit["text"]
    assert hit["section"] == ["Lakes"]
    assert client.delete("/v1/libraries/notes/documents/lake.md").status_code == 200
    assert client.get("/v1/libraries/notes/documents/lake.md").status_code == 404
    assert client.delete("/v1/libraries/notes/documents/lake.md").status_code == 404
    assert client.delete("/v1/libraries/notes").status_code == 200
    assert "notes" not in client.get("/v1/libraries").json()["libraries"]
    assert not (shared.service.options.folder / "libraries" / "notes.library").exists()


def test_documents_are_told_page_by_page(client: httpx.Client, shared: Running) -> None:
    client.post("/v1/libraries", json={"name": "pages"})
    for number in range(5):
        client.put(f"/v1/libraries/pages/documents/d{number}", json={"text": f"Text number {number}."})
    shared.indexed("pages")
    names, after = [], None
    while True:
        page = client.get("/v1/libraries/pages/documents", params={"limit": 2, **({"after": after} if after else {})})
        names += [document["id"] for document in page.json()["documents"]]
        after = page.json().get("after")
        if after is None:
            break
    assert names == [f"d{number}" for number in range(5)]
    client.delete("/v1/libraries/pages")


@pytest.mark.parametrize("name", ["..", "a/b", "UPPER", "", "a" * 65, ".hidden", "a.b", "näme"])
def test_a_name_that_could_be_a_path_is_no_library(client: httpx.Client, name: str) -> None:
    assert client.post("/v1/libraries", json={"name": name}).status_code == 400


def test_a_filter_narrows_and_a_wrong_one_is_refused(client: httpx.Client) -> None:
    def search(where: Any) -> httpx.Response:
        return client.post("/v1/libraries/manuals/search", json={"query": "torque", "where": where})

    assert search({"year": {"gte": 2025}}).json()["hits"]
    assert not search({"year": {"lt": 2025}}).json()["hits"]
    assert search({"year": {"near": 2025}}).status_code == 400


def test_options_of_methods_are_the_servers_alone(client: httpx.Client) -> None:
    for body in ({"retriever": "hybrid(diversity=0.3)"}, {"reranker": "cross_encoder(model='/etc')"}):
        asked = client.post("/v1/libraries/manuals/search", json={"query": "torque", **body})
        assert asked.status_code == 400


def test_an_answer_comes_as_passages_tokens_and_the_answer(serving: Serving) -> None:
    with serving(Scripted(), {"model": "scripted", "answer": "generate"}) as server, server.http() as client:
        fill(server, client)
        response = client.post(
            "/v1/libraries/manuals/ask", json={"question": "What is the torque limit of the bolts?", "stream": True}
        )
        told = events(response)
        assert told[0][0] == "passages"
        assert "".join(data["text"] for name, data in told if name == "token").strip() == Scripted().text
        name, answer = told[-1]
        assert name == "answer"
        assert (answer["found"], answer["answer"]) == (True, Scripted().text)
        quote = answer["citations"][0]
        assert PUMP[quote["start"] : quote["end"]] == quote["quote"]
        assert answer["timing"]["total_s"] >= answer["timing"]["ttft_s"] >= answer["timing"]["search_s"]
        whole = client.post("/v1/libraries/manuals/ask", json={"question": "What is the torque limit of the bolts?"})
        assert whole.json()["answer"] == answer["answer"]


def test_any_client_of_openai_gets_answers_from_a_library(serving: Serving) -> None:
    with serving(Scripted(), {"model": "scripted", "answer": "generate"}) as server, server.http() as client:
        fill(server, client)
        talk: Any = [{"role": "user", "content": "What is the torque limit of the bolts?"}]
        by_name = server.openai().chat.completions.create(model="scripted@manuals", messages=talk)
        assert by_name.choices[0].message.content == Scripted().text
        named = server.openai().chat.completions.create(
            model="scripted", messages=talk, extra_body={"library": "manuals"}
        )
        citation = (named.choices[0].message.model_extra or {})["citations"][0]
        assert PUMP[citation["start"] : citation["end"]] == citation["quote"]
        parts = server.openai().chat.completions.create(model="scripted@manuals", messages=talk, stream=True)
        assert "".join(part.choices[0].delta.content or "" for part in parts) == Scripted().text
        with pytest.raises(openai.BadRequestError):
            server.openai().chat.completions.create(model="scripted@manuals", messages=talk, n=2)


def test_what_passages_do_not_support_is_not_said_in_a_stream_either(serving: Serving) -> None:
    engine = Scripted("It is seventy, as Admiral Nelson ordered.")
    with serving(engine, {"model": "scripted", "answer": "generate"}) as server, server.http() as client:
        fill(server, client)
        talk: Any = [{"role": "user", "content": "What is the torque limit of the bolts?"}]
        parts = server.openai().chat.completions.create(model="scripted@manuals", messages=talk, stream=True)
        assert "Nelson" not in "".join(part.choices[0].delta.content or "" for part in parts)
        assert len(engine.prompts) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_question_that_leans_on_one_before_is_searched_for_with_it(serving: Serving, stream: bool) -> None:
    engine = Scripted()
    with serving(engine, {"model": "scripted", "answer": "generate"}) as server, server.http() as client:
        fill(server, client)

        def ask(*said: str) -> dict[str, Any]:
            roles = ("user", "assistant")
            talk = [{"role": roles[at % 2], "content": text} for at, text in enumerate(said)]
            body = {"model": "scripted@manuals", "messages": talk, "stream": stream}
            answer = client.post("/v1/chat/completions", json=body)
            if stream:
                first = answer.text.splitlines()[0].removeprefix("data: ")
                return dict(json.loads(first)["choices"][0]["delta"])
            return dict(answer.json()["choices"][0]["message"])

        told = ask("How fast does the pump turn?", "At 900 rpm.", "And what is its torque limit?")
        assert told["searched"] == "How fast does the pump turn? And what is its torque limit?"
        assert told["citations"]
        assert "And what is its torque limit?" in engine.prompts[-1]
        assert "searched" not in ask(
            "How fast does the pump turn?", "At 900 rpm.", "What is the torque limit of bolts?"
        )


def test_a_prompt_budget_bounds_what_is_read(client: httpx.Client, shared: Running) -> None:
    def ask(**budget: int) -> httpx.Response:
        return client.post("/v1/libraries/manuals/ask", json={"question": "Torque?", "budget": budget})

    most = ask().json()["usage"]["prompt_tokens"] - 20
    assert ask(max_prompt_tokens=most).json()["usage"]["prompt_tokens"] <= most
    assert ask(max_prompt_tokens=5).status_code == 400
    assert ask(max_kv_bytes=5).json()["error"]["code"] == "over_budget"


def test_texts_are_ordered_by_what_they_have_to_do_with_the_query(client: httpx.Client) -> None:
    texts = ["A lake is deep.", "The torque limit is 25 Nm.", "Cork."]
    told = client.post("/v1/rerank", json={"query": "What is the torque limit?", "documents": texts, "top_n": 2}).json()
    assert told["results"][0]["index"] == 1
    assert len(told["results"]) == 2


def test_a_mounted_library_is_asked_and_never_changed(serving: Serving, tmp_path: Path) -> None:
    with open_hashed(tmp_path / "own.library") as library:
        library.add_text("pump", PUMP)
    with serving(Scripted(), {"model": "scripted"}, mounted={"own": tmp_path / "own.library"}) as server:
        client = server.http()
        assert client.get("/v1/libraries/own").json()["writable"] is False
        assert client.post("/v1/libraries/own/search", json={"query": "torque"}).json()["hits"]
        assert client.put("/v1/libraries/own/documents/x", json={"text": "x"}).status_code == 403
        assert client.delete("/v1/libraries/own/documents/pump").status_code == 403
        assert client.delete("/v1/libraries/own").status_code == 403
        assert client.post("/v1/libraries", json={"name": "own"}).status_code == 409


def fill(server: Running, client: httpx.Client) -> None:
    client.post("/v1/libraries", json={"name": "manuals"})
    client.put("/v1/libraries/manuals/documents/pump", json={"text": PUMP})
    server.indexed("manuals", client)
