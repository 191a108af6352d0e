"""Keys, and what one tenant can learn of another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from typer.testing import CliRunner

from longreach.cli import app
from longreach.engine import Sampling
from longreach.engine.paged import PagedEngine
from longreach.errors import InputError
from longreach.kv.codec import make
from longreach.kv.store.entry import Named
from longreach.kv.store.store import KVStore
from longreach.serve.keys import Key, KeyStore
from longreach.serve.options import ServeOptions
from longreach.serve.rates import Rates
from longreach.serve.refusals import Refusal
from serving import Running, Serving

STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
Made = Callable[..., PagedEngine]


@pytest.fixture
def keys(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "serve")


def test_a_key_is_found_by_its_secret_alone_until_it_is_revoked(keys: KeyStore, tmp_path: Path) -> None:
    assert not keys.any()
    key, secret = keys.create("anna", libraries=["notes"], write=True, per_minute=5)
    assert keys.find(secret) == key
    assert keys.find(secret[:-1]) is None
    assert keys.find(f"{secret[:-1]}{'A' if secret[-1] != 'A' else 'B'}") is None
    assert keys.find("") is None
    assert secret.split("-", 2)[2].encode() not in (tmp_path / "serve" / "keys.sqlite").read_bytes()
    assert (tmp_path / "serve" / "keys.sqlite").stat().st_mode & 0o077 == 0
    keys.revoke("anna")
    assert keys.find(secret) is None
    assert keys.any()
    with pytest.raises(InputError):
        keys.revoke("anna")


@pytest.mark.parametrize("wrong", [{"name": ""}, {"name": "a b"}, {"name": "a", "tenant": "key:1"}, {"per_minute": -1}])
def test_a_key_that_cannot_be_is_not_made(keys: KeyStore, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        keys.create(**{"name": "anna", **wrong})
    assert not keys.any()


def test_a_key_may_make_so_many_requests_a_minute() -> None:
    rates, key = Rates(), Key("1", "anna", "t", per_minute=2)
    rates.take(key, 0.0)
    rates.take(key, 0.0)
    with pytest.raises(Refusal) as raised:
        rates.take(key, 0.0)
    assert raised.value.wait == pytest.approx(30)
    rates.take(key, 30.0)
    with pytest.raises(Refusal):
        rates.take(key, 31.0)


def test_a_key_sees_its_libraries_and_no_others(serving: Serving, tiny: Made, keys: KeyStore) -> None:
    reads, writes = keys.create("reads", libraries=["notes"])[1], keys.create("writes", write=True)[1]
    with serving(tiny(), {"answer": "generate(max_tokens=4)"}) as server:
        owner, guest, nobody = server.http(writes), server.http(reads), server.http()
        for name in ("notes", "secrets"):
            assert owner.post("/v1/libraries", json={"name": name}).status_code == 201
            owner.put(f"/v1/libraries/{name}/documents/a", json={"text": f"The {name} are told here."})
            server.indexed(name, owner)
        assert guest.get("/v1/libraries").json()["libraries"] == ["notes"]
        assert {model["id"] for model in guest.get("/v1/models").json()["data"]} == {"tiny", "tiny@notes", "hashing"}
        hidden, absent = (
            guest.post(f"/v1/libraries/{name}/search", json={"query": "told"}) for name in ("secrets", "nowhere")
        )
        assert hidden.status_code == absent.status_code == 404
        assert hidden.json()["error"]["message"].replace("secrets", "") == absent.json()["error"]["message"].replace(
            "nowhere", ""
        )
        for path in ("", "/documents", "/documents/a", "/uploads"):
            assert guest.get(f"/v1/libraries/secrets{path}").status_code == 404
        for model in ("tiny@secrets", "tiny"):
            with pytest.raises(openai.NotFoundError):
                server.openai(reads).chat.completions.create(
                    model=model, messages=[{"role": "user", "content": "?"}], extra_body={"library": "secrets"}
                )
        assert guest.put("/v1/libraries/notes/documents/b", json={"text": "x"}).status_code == 403
        assert guest.delete("/v1/libraries/notes").status_code == 403
        assert guest.get("/metrics").status_code == 403
        assert owner.get("/metrics").status_code == 200
        for path in ("/v1/models", "/v1/libraries", "/metrics", "/v1/libraries/notes"):
            assert nobody.get(path).status_code == 401
        with pytest.raises(openai.AuthenticationError):
            server.openai("lr-x-y").models.list()


def test_a_revoked_key_is_out_at_once_and_nobody_gets_in_without_one(
    serving: Serving, tiny: Made, keys: KeyStore
) -> None:
    with serving(tiny()) as server:
        assert server.http().get("/v1/models").status_code == 200
        secret = keys.create("anna")[1]
        assert server.http().get("/v1/models").status_code == 401
        assert server.http(secret).get("/v1/models").status_code == 200
        keys.revoke("anna")
        assert server.http(secret).get("/v1/models").status_code == 401
        assert server.http().get("/v1/models").status_code == 401


def test_too_many_requests_of_a_key_are_refused(serving: Serving, tiny: Made, keys: KeyStore) -> None:
    secret = keys.create("anna", per_minute=2)[1]
    with serving(tiny()) as server:
        statuses = [server.http(secret).get("/v1/models").status_code for _ in range(3)]
        assert statuses == [200, 200, 429]


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Host": "localhost", "Origin": "null"}],
)
def test_without_keys_no_web_page_gets_in_through_a_browser(shared: Running, headers: dict[str, str]) -> None:
    assert shared.http().get("/v1/models", headers=headers).status_code == 403


def test_without_keys_a_form_of_a_web_page_is_no_request(shared: Running) -> None:
    body = '{"model": "tiny", "prompt": "Once", "max_tokens": 1}'
    for kind, status in (("text/plain", 400), ("application/json", 200)):
        told = shared.http().post("/v1/completions", content=body, headers={"Content-Type": kind})
        assert told.status_code == status


def test_a_server_that_others_can_reach_asks_for_keys_even_if_there_are_none(tmp_path: Path) -> None:
    assert not ServeOptions(folder=tmp_path, host="0.0.0.0").loopback
    assert ServeOptions(folder=tmp_path, host="::1").loopback
    done = CliRunner().invoke(app, ["serve", "--host", "0.0.0.0", "--folder", str(tmp_path)])
    assert isinstance(done.exception, InputError)


def test_keys_are_made_listed_and_revoked_by_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["keys", *arguments, "--folder", str(tmp_path)])
        assert done.exit_code == 0, done.output
        return done.stdout

    secret = run("create", "anna", "--library", "notes", "--per-minute", "9").split()[0]
    key = KeyStore(tmp_path).find(secret)
    assert key is not None
    assert (key.libraries, key.per_minute, key.write) == (("notes",), 9, False)
    run("revoke", "anna")
    told = json.loads(run("list", "--json"))
    assert [one["name"] for one in told] == ["anna"]
    assert told[0]["revoked"]
    assert secret not in json.dumps(told)


def test_what_one_tenant_read_is_not_reused_for_another(tiny: Made) -> None:
    engine = tiny()

    def reused(tenant: str) -> int:
        return engine.start(STORY, Sampling(max_tokens=4), tenant=tenant).finish().usage.reused_tokens

    assert reused("a") == 0
    assert reused("b") == reused("") == reused("c") == 0
    assert min(reused("a"), reused("b"), reused("")) > 16
    assert engine.begin_exploration(STORY, tenant="d").finish().reused_tokens == 0
    assert engine.begin_exploration(STORY, tenant="a").finish().reused_tokens > 16


def test_passages_that_one_tenant_read_are_not_reused_for_another(tiny: Made, tmp_path: Path) -> None:
    from longreach.engine import Part

    engine = tiny()
    store = KVStore.open(
        tmp_path, fingerprint="s", codec=Named("raw", make("raw")), host_bytes=1 << 20, disk_bytes=1 << 26
    )
    engine.keep_passages(store)
    texts = [("Once upon a time. ", False), ("She had a red ball. ", True), ("It was big. ", True), ("Then", False)]
    prompt = [Part(tuple(engine.tokenize(text)), passage) for text, passage in texts]

    def ask(tenant: str) -> tuple[int, list[int]]:
        done = engine.start(prompt, Sampling(max_tokens=4), tenant=tenant).finish()
        return done.usage.reused_tokens, list(done.token_ids)

    first = ask("a")
    assert first[0] == ask("b")[0] == 0
    assert ask("a") == (sum(len(part.token_ids) for part in prompt[:-1]), first[1])
    assert engine.read_ahead(prompt, tenant="a") == 0
    assert engine.read_ahead(prompt, tenant="c") > 0


def test_a_key_is_never_told_of_tokens_that_another_key_read(serving: Serving, tiny: Made, keys: KeyStore) -> None:
    alone = [keys.create(name)[1] for name in ("anna", "bert")]
    team = [keys.create(name, tenant="team")[1] for name in ("cora", "dirk")]
    with serving(tiny()) as server:

        def cached(secret: str) -> int:
            done = server.openai(secret).completions.create(model="tiny", prompt=STORY, max_tokens=2)
            assert done.usage is not None
            assert done.usage.prompt_tokens_details is not None
            return done.usage.prompt_tokens_details.cached_tokens or 0

        assert [cached(secret) for secret in alone] == [0, 0]
        assert cached(alone[0]) > 16
        assert cached(team[0]) == 0
        assert cached(team[1]) > 16
