"""Who gets to the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request, WebSocket
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from hashed import HashingEncoder, open_hashed
from longreach.config import Settings
from longreach.serve.keys import Key, KeyStore
from longreach.serve.logs import make_log
from longreach.serve.middleware import Around
from longreach.serve.options import ServeOptions
from longreach.serve.page.frontier import frontier_page
from longreach.serve.page.guard import Guard
from longreach.serve.page.sessions import COOKIE, LASTS, Sessions
from longreach.serve.page.sign_in import sign_in_routes
from longreach.serve.refusals import Refusal
from longreach.serve.service import Service
from serving import Scripted

HERE = "http://127.0.0.1:8000"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(
        ServeOptions(folder=tmp_path / "serve", frontiers=[tmp_path / "sweep"]),
        Settings(encoder="hashing"),
        make_log(),
        make_engine=Scripted,
        open_library=lambda path, create: open_hashed(path, create=create),
        load_encoder=HashingEncoder,
    )
    yield made
    made.close()


@pytest.fixture
def client(service: Service) -> TestClient:
    """A browser before a guarded application that tells whose page it would show."""
    sessions = Sessions()
    app = FastAPI()
    app.state.service = service
    app.include_router(sign_in_routes(sessions))

    @app.get("/page/{path:path}")
    async def page(request: Request) -> str:
        return str((await request.state.visitor.key()).name)

    @app.post("/page/change")
    async def change(request: Request) -> str:
        return str((await request.state.visitor.spend()).name)

    @app.get("/v1/models")
    async def models(request: Request) -> bool:
        return hasattr(request.state, "visitor")

    @app.websocket("/page/socket")
    async def socket(connection: WebSocket) -> None:
        await connection.accept()
        await connection.send_text((await connection.state.visitor.key()).name)
        await connection.close()

    app.add_middleware(Guard, service=service, sessions=sessions)
    app.add_middleware(Around, options=service.options, log=service.log, count=lambda *_: None)
    return TestClient(app, base_url=HERE, follow_redirects=False)


def sign_in(client: TestClient, secret: str, origin: str = HERE) -> Any:
    return client.post("/page/sign-in", data={"key": secret}, headers={"Origin": origin})


def hears(client: TestClient, origin: str | None = HERE) -> str:
    with client.websocket_connect(
        "ws://127.0.0.1:8000/page/socket", headers={"Origin": origin} if origin else {}
    ) as socket:
        return socket.receive_text()


def test_without_keys_this_machine_sees_the_page(client: TestClient) -> None:
    assert client.get("/page/").json() == "local"
    assert hears(client) == "local"
    assert client.get("/page/sign-in").headers["location"] == "/page/"


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}])
def test_without_keys_no_other_site_gets_anything(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/page/", headers=headers).status_code == 403
    with pytest.raises(WebSocketDisconnect):
        hears(client, "http://evil.example")
    with pytest.raises(WebSocketDisconnect):
        hears(client, "http://127.0.0.1:9999")  # another program's page on this machine
    with pytest.raises(WebSocketDisconnect):
        hears(client, None)


def test_with_keys_nothing_is_shown_before_signing_in(client: TestClient, service: Service) -> None:
    service.access.keys.create("anna")
    for path in ("/page/", "/page/_nicegui/static/nicegui.js", "/page/frontier/0"):
        answer = client.get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, "/page/sign-in")
    assert client.post("/page/change", headers={"Origin": HERE}).status_code == 401
    with pytest.raises(WebSocketDisconnect):
        hears(client)


def test_a_key_signs_in_and_its_secret_goes_no_further(client: TestClient, service: Service) -> None:
    _, secret = service.access.keys.create("anna")
    answer = sign_in(client, secret)
    assert (answer.status_code, answer.headers["location"]) == (303, "/page/")
    cookie = answer.headers["set-cookie"]
    assert secret.rpartition("-")[2] not in cookie
    assert all(word in cookie.lower() for word in ("httponly", "samesite=strict", "path=/page"))
    assert client.get("/page/").json() == "anna"
    assert hears(client) == "anna"


@pytest.mark.parametrize("wrong", ["", "lr-0-x", "x" * 200, "<script>"])
def test_a_bad_key_does_not(client: TestClient, service: Service, wrong: str) -> None:
    service.access.keys.create("anna")
    answer = sign_in(client, wrong)
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert "<script>" not in answer.text


def test_a_session_ends_with_its_key_and_by_signing_out(client: TestClient, service: Service) -> None:
    _, secret = service.access.keys.create("anna")
    sign_in(client, secret)
    kept = client.cookies[COOKIE]
    assert client.post("/page/sign-out", headers={"Origin": HERE}).status_code == 303
    assert client.get("/page/", headers={"Cookie": f"{COOKIE}={kept}"}).status_code == 303
    sign_in(client, secret)
    assert client.get("/page/").json() == "anna"
    service.access.keys.revoke("anna")
    assert client.get("/page/").status_code == 303


def test_another_site_cannot_sign_in_or_change_anything(client: TestClient, service: Service) -> None:
    _, secret = service.access.keys.create("anna")
    assert sign_in(client, secret, "http://evil.example").status_code == 403
    sign_in(client, secret)
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {}):
        assert client.post("/page/change", headers=headers).status_code == 403
    with pytest.raises(WebSocketDisconnect):
        hears(client, "http://evil.example")


def test_a_change_counts_as_a_request(client: TestClient, service: Service) -> None:
    _, secret = service.access.keys.create("anna", per_minute=2)
    sign_in(client, secret)
    assert client.post("/page/change", headers={"Origin": HERE}).status_code == 200
    assert client.post("/page/change", headers={"Origin": HERE}).status_code == 429


def test_what_is_shown_may_load_nothing_from_elsewhere_nor_be_framed(client: TestClient) -> None:
    policy = client.get("/page/").headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy


def test_the_api_knows_no_sessions(client: TestClient, service: Service) -> None:
    _, secret = service.access.keys.create("anna")
    sign_in(client, secret)
    assert client.get("/v1/models").json() is False


def test_a_cookie_cannot_be_made_up_or_kept_for_ever(tmp_path: Path) -> None:
    now = 1000.0
    sessions = Sessions(lambda: now)
    key, _ = KeyStore(tmp_path).create("anna")
    cookie = sessions.begin(key)
    session = sessions.read(cookie)
    assert session is not None
    assert session.key_id == key.id
    for forged in ("", "a.b.c.d", cookie[:-1], f"x{cookie}", cookie.replace(key.id, "0" * len(key.id)), "é.1.1.é"):
        assert sessions.read(forged) is None
    assert Sessions(lambda: now).read(cookie) is None
    now += LASTS + 1
    assert sessions.read(cookie) is None
    assert not sessions.good(session)


def test_measurements_are_for_keys_that_may_see_all(service: Service, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "frontier.html").write_text("<p>front", encoding="utf-8")
    assert frontier_page(service, Key("1", "a", "t"), 0) == "<p>front"
    for key, number in ((Key("1", "a", "t", ["notes"]), 0), (Key("1", "a", "t"), 1), (Key("1", "a", "t"), -1)):
        with pytest.raises(Refusal):
            frontier_page(service, key, number)
