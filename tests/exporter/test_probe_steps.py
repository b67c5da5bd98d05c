"""Several requests in a row, with captured values and cookies."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.kinds.steps import StepsProbe
from exporter.loading import load_config
from exporter.observation import Outcome, Reason
from exporter.probes import steps
from exporter.probes.context import Context, Note, Progress, Tools

TOKEN = "tok/en+" + "qz47wx"  # built from pieces; it needs quoting in an address


async def login(request: web.Request) -> web.Response:
    return web.json_response(
        {"access": {"token": TOKEN}, "number": 7, "none": None, "long": "x" * 20_000},
        headers={"X-Id": "id-1", "Set-Cookie": "session=abcd; HttpOnly"},
    )


async def quoted(_: web.Request) -> web.Response:
    return web.json_response({"name": 'a"b\\c\nd", "admin": "yes'})


async def page(_: web.Request) -> web.Response:
    return web.Response(text=f'<input name="csrf" value="{TOKEN}">')


async def api(request: web.Request) -> web.Response:
    told = {
        "token": request.headers.get("Authorization", ""),
        "id": request.query.get("id", ""),
        "cookie": request.cookies.get("session", ""),
        "body": await request.text(),
    }
    return web.json_response(told)


async def lines(_: web.Request) -> web.Response:
    return web.Response(text="a\r\nX-Injected: 1")


async def broken(_: web.Request) -> web.Response:
    return web.Response(status=500)


async def leak(_: web.Request) -> web.Response:
    return web.json_response({"value": TOKEN})


async def moved(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": f"/api?id={request.query['id']}"})


async def hang(_: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


@pytest.fixture
async def server() -> AsyncIterator[str]:
    app = web.Application()
    for handler in (login, quoted, page, api, lines, broken, leak, moved, hang):
        app.router.add_route("*", f"/{handler.__name__}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def run(context: Context, taken: list[dict[str, Any]], **more: Any) -> Outcome:
    return await steps.probe(StepsProbe.model_validate({"steps": taken, **more}), context)


CAPTURE = {"token": {"json": "access.token"}}


async def test_a_captured_value_goes_into_address_header_and_body(server: str, context: Context) -> None:
    taken: list[dict[str, Any]] = [
        {"http": f"{server}/login", "method": "POST", "capture": {**CAPTURE, "id": {"header": "X-Id"}}},
        {
            "http": f"{server}/api?id={{{{ token }}}}",
            "method": "PUT",
            "headers": {"Authorization": "Bearer {{token}}"},
            "body": "id is {{ id }}",
            "expect": {"json": {"token": f"Bearer {TOKEN}", "id": TOKEN, "body": "id is id-1"}},
        },
    ]
    outcome = await run(context, taken)

    assert outcome.reason is None, outcome.detail
    assert outcome.http is not None


async def test_a_value_is_captured_by_the_group_of_a_pattern(server: str, context: Context) -> None:
    taken: list[dict[str, Any]] = [
        {"http": f"{server}/page", "capture": {"csrf": {"body": 'name="csrf" value="([^"]+)"'}}},
        {
            "http": f"{server}/api",
            "body": "{{ csrf }}",
            "method": "POST",
            "expect": {"json": {"body": TOKEN}},
        },
    ]
    assert (await run(context, taken)).reason is None


@pytest.mark.parametrize(("cookies", "seen"), [(True, "abcd"), (False, "")])
async def test_cookies_live_for_the_run_if_wanted(
    server: str, context: Context, cookies: bool, seen: str
) -> None:
    taken: list[dict[str, Any]] = [
        {"http": f"{server}/login"},
        {"http": f"{server}/api", "expect": {"json": {"cookie": seen}}},
    ]
    for _ in range(2):
        outcome = await run(context, taken, cookies=cookies)
        assert outcome.reason is None, outcome.detail


@pytest.mark.parametrize(
    ("taken", "reason", "detail"),
    [
        ([{"http": "/broken"}], Reason.STATUS, "step 1 (GET {}): answered 500, expected 2xx"),
        (
            [{"http": "/login"}, {"http": "/broken"}],
            Reason.STATUS,
            "step 2 (GET {}): answered 500, expected 2xx",
        ),
        ([{"http": "/login"}, {"http": "/hang"}], Reason.TIMEOUT, "step 2 (GET {}): no answer within 0.5 s"),
        ([{"http": "/login", "capture": {"a": {"json": "access"}}}], Reason.JSON, "no value at access"),
        ([{"http": "/login", "capture": {"a": {"json": "none"}}}], Reason.JSON, "no value at none"),
        ([{"http": "/page", "capture": {"a": {"json": "x"}}}], Reason.JSON, "not JSON"),
        ([{"http": "/login", "capture": {"a": {"header": "X-No"}}}], Reason.HEADER, "no header X-No"),
        ([{"http": "/page", "capture": {"a": {"body": "no(t)hing"}}}], Reason.BODY, "nothing in the body"),
        ([{"http": "/login", "capture": {"a": {"json": "long"}}}], Reason.TOO_LARGE, "a is longer than"),
    ],
)
async def test_the_step_that_fails_is_named(
    server: str, tools: Tools, taken: list[dict[str, Any]], reason: Reason, detail: str
) -> None:
    taken = [{**step, "http": server + step["http"]} for step in taken]

    outcome = await run(Context(timeout=0.5, tools=tools), taken)

    assert outcome.reason is reason
    assert detail.format(server.removeprefix("http://")) in outcome.detail


async def test_a_step_that_cannot_connect_is_named(
    server: str, context: Context, free_port: Callable[[], int]
) -> None:
    outcome = await run(context, [{"http": f"{server}/login"}, {"http": f"http://127.0.0.1:{free_port()}/"}])

    assert outcome.reason is Reason.CONNECT_REFUSED
    assert outcome.detail.startswith("step 2 (GET 127.0.0.1:")


async def test_a_captured_value_cannot_add_a_header(server: str, context: Context) -> None:
    taken: list[dict[str, Any]] = [
        {"http": f"{server}/lines", "capture": {"a": {"body": "(?s)(.+)"}}},
        {"http": f"{server}/api", "headers": {"X-A": "{{ a }}"}},
    ]
    outcome = await run(context, taken)

    assert outcome.reason is Reason.PROTOCOL
    assert outcome.detail.endswith("a captured value does not fit into the header X-A")


async def test_captured_values_are_told_to_nobody(server: str, tools: Tools) -> None:
    notes: list[Note] = []
    taken: list[dict[str, Any]] = [
        {"http": f"{server}/login", "capture": CAPTURE},
        {"http": f"{server}/moved?id={{{{ token }}}}", "redirects": 1},
        {"http": f"{server}/leak", "expect": {"json": {"value": "other"}}},
    ]
    outcome = await run(Context(timeout=2.0, tools=tools, notes=notes), taken)

    assert outcome.reason is Reason.JSON
    assert any("redirect" in note.text for note in notes)
    assert "qz47wx" not in repr((outcome, notes))


def test_a_secret_with_another_at_its_beginning_is_hidden_whole() -> None:
    for secrets in (["abcd", "abcd-efgh"], ["abcd-efgh", "abcd"]):
        progress = Progress()
        for secret in secrets:
            progress.hide(secret)

        assert "efgh" not in progress.outcome(Reason.BODY, "got abcd-efgh").detail


@pytest.mark.parametrize(
    ("written", "mistake"),
    [
        ([], "steps: must not be empty"),
        ([{"http": "http://x"}] * 21, "steps: must have at most 20 entries"),
        ([{"http": "http://x/{{ a }}"}], "step 1: http: no earlier step captures 'a'"),
        (
            [{"http": "http://x", "capture": {"a": {"header": "X"}}, "body": "{{ a }}"}],
            "step 1: body: no earlier",
        ),
        (
            [{"http": "http://x", "headers": {"A": "{{ a.b }}"}}],
            "step 1: headers.A: a captured value is written",
        ),
        ([{"http": "http://{{a}}/x"}], "the host is fixed"),
        ([{"http": "http://x", "capture": {"a": {}}}], "needs one of json, header and body"),
        ([{"http": "http://x", "capture": {"a": {"json": "b", "header": "X"}}}], "needs one of json"),
        ([{"http": "http://x", "capture": {"a": {"body": "ab"}}}], "must have one group"),
        ([{"http": "http://x", "capture": {"a": {"body": "(a)(b)"}}}], "must have one group"),
        ([{"http": "http://x", "capture": {"a": {"body": "(a"}}}], "is not a regular expression of RE2"),
        (
            [{"http": "http://x", "capture": {"a b": {"json": "c"}}}],
            "the name of a captured value has letters, digits",
        ),
        ([{"http": "http://x", "method": "HEAD", "capture": {"a": {"json": "c"}}}], "HEAD has no body"),
        ([{"http": "http://x", "interval": "5s"}], "interval: unknown key"),
    ],
)
def test_mistakes_in_steps_are_told_with_their_mend(tmp_path: Path, written: Any, mistake: str) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_text(json.dumps({"services": {"a": {"probes": [{"steps": written}]}}}))

    with pytest.raises(ConfigError) as caught:
        load_config(file, WatchConfig, {})

    assert mistake in str(caught.value)


@pytest.mark.parametrize(
    ("content_type", "escaped"),
    [
        ("application/json", True),
        ("Application/Problem+JSON; charset=utf-8", True),
        ("text/plain", False),
        (None, False),
    ],
)
async def test_a_captured_value_is_escaped_in_a_body_of_json(
    server: str, context: Context, content_type: str | None, escaped: bool
) -> None:
    value = 'a"b\\c\nd", "admin": "yes'
    asks = {
        "http": f"{server}/api",
        "method": "POST",
        "headers": {} if content_type is None else {"content-TYPE": content_type},
        "body": '{"user": "{{ name }}"}',
        "expect": {"json": {"body": json.dumps({"user": value}) if escaped else f'{{"user": "{value}"}}'}},
    }

    outcome = await run(context, [{"http": f"{server}/quoted", "capture": {"name": {"json": "name"}}}, asks])

    assert outcome.reason is None, outcome.detail
