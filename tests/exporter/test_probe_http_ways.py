"""The HTTP probe on its way: redirects, credentials, cookies, proxies, socket files, expectations."""

import asyncio
import gzip
import json
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.gate import gate_of
from exporter.kinds import Tls
from exporter.kinds.http import HttpProbe
from exporter.loading import load_config
from exporter.observation import Outcome, Reason
from exporter.probes import http
from exporter.probes.context import Context, Note, Tools

SECRET = "hun" + "ter2"  # built from pieces
BASIC = "Basic bWU6aHVudGVyMg=="


async def echo(request: web.Request) -> web.Response:
    kept = (
        "Authorization",
        "Cookie",
        "X-Api-Key",
        "X-Plain",
        "Accept-Encoding",
        "Content-Type",
        "User-Agent",
    )
    told = {name.lower(): request.headers.get(name, "") for name in kept}
    told |= {"method": request.method, "body": await request.text(), "host": request.headers["Host"]}
    return web.json_response(
        told | {"path": request.path_qs}, headers={"Last-Modified": "Thu, 01 Jan 1970 00:01:00 GMT"}
    )


async def to(request: web.Request) -> web.Response:
    """Redirect as the query says."""
    answer = web.Response(status=int(request.query["status"]), headers={"Location": request.query["place"]})
    answer.set_cookie("seen", "yes")
    return answer


async def steps(request: web.Request) -> web.Response:
    left = int(request.match_info["left"])
    if left == 0:
        return web.Response(text="there")
    return web.Response(status=302, headers={"Location": f"/steps/{left - 1}"})


async def packed(request: web.Request) -> web.Response:
    wanted = request.headers["Accept-Encoding"]
    well = b'{"well": true}'
    content = gzip.compress(well) if wanted == "gzip" else zlib.compress(well)
    return web.Response(body=content, headers={"Content-Encoding": wanted})


async def data(_: web.Request) -> web.Response:
    told = {"load": 0.5, "queue": [1, 2, 3], "name": "shop-7", "none": None, "nested": [{"up": True}]}
    return web.json_response(told, headers={"X-A": "one"})


async def latin(_: web.Request) -> web.Response:
    return web.Response(
        body="grün".encode("latin-1"), headers={"Content-Type": "text/plain; charset=iso-8859-1"}
    )


def application() -> web.Application:
    app = web.Application()
    for handler in (echo, to, packed, data, latin):
        app.router.add_route("*", f"/{handler.__name__}", handler)
    app.router.add_get("/steps/{left}", steps)
    return app


Serve = Callable[..., Any]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners: list[web.AppRunner] = []

    async def start(host: str = "127.0.0.1", **options: Any) -> int:
        runner = web.AppRunner(application(), shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, host, 0, **options).start()
        return int(runner.addresses[0][1])

    yield start
    for runner in runners:
        await runner.cleanup()


async def ask(context: Context, address: str, **more: Any) -> Outcome:
    return await http.probe(HttpProbe.model_validate({"http": address, **more}), context)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_and_counted(serve: Serve, context: Context, status: int) -> None:
    port = await serve()
    address = f"http://127.0.0.1:{port}/to?status={status}&place=/echo%3Fa%3Db"

    outcome = await ask(context, address, redirects=1, expect={"json": {"path": "/echo?a=b"}})

    assert outcome.reason is None, outcome.detail
    assert outcome.http is not None
    assert outcome.http.redirects == 1
    assert outcome.http.last_modified == 60


@pytest.mark.parametrize(
    ("status", "method", "body"), [(301, "GET", ""), (303, "GET", ""), (307, "POST", "ping")]
)
async def test_a_post_becomes_a_get_where_it_must(
    serve: Serve, context: Context, status: int, method: str, body: str
) -> None:
    port = await serve()
    outcome = await ask(
        context,
        f"http://127.0.0.1:{port}/to?status={status}&place=echo",
        method="POST",
        body="ping",
        headers={"Content-Type": "text/x-ping"},
        redirects=1,
        expect={"json": {"method": method, "body": body, "content-type": "text/x-ping" if body else ""}},
    )

    assert outcome.reason is None, outcome.detail


@pytest.mark.parametrize(
    ("redirects", "steps", "reason"),
    [(0, 1, Reason.STATUS), (3, 3, None), (3, 4, Reason.REDIRECT), (20, 20, None)],
)
async def test_no_more_redirects_are_followed_than_allowed(
    serve: Serve, context: Context, redirects: int, steps: int, reason: Reason | None
) -> None:
    port = await serve()

    outcome = await ask(context, f"http://127.0.0.1:{port}/steps/{steps}", redirects=redirects)

    assert outcome.reason is reason


@pytest.mark.parametrize("away", [True, False])
async def test_secrets_stay_with_the_host_they_are_for(serve: Serve, context: Context, away: bool) -> None:
    first = await serve()
    second = await serve() if away else first
    expected = {
        "authorization": "" if away else BASIC,
        "cookie": "seen=yes" if away else "own=1; seen=yes",  # cookies know hosts, not ports
        "x-api-key": "" if away else SECRET,
        "x-plain": "1",
        "host": f"127.0.0.1:{second}" if away else "shop.test",
    }
    outcome = await ask(
        context,
        f"http://127.0.0.1:{first}/to?status=302&place=http://127.0.0.1:{second}/echo",
        basic_auth={"username": "me", "password": SECRET},
        headers={"X-Api-Key": SECRET, "X-Plain": "1", "Cookie": "own=1", "Host": "shop.test"},
        redirects=1,
        expect={"json": expected},
    )

    assert outcome.reason is None, outcome.detail


async def test_the_gate_is_asked_about_each_hop(serve: Serve, tools: Tools) -> None:
    first, second = await serve(), await serve()
    context = Context(timeout=2.0, tools=tools, gate=gate_of([f"127.0.0.1:{first}"]))
    address = f"http://127.0.0.1:{first}/to?status=302&place=http://127.0.0.1:{second}/echo"

    assert (await ask(context, address, redirects=1)).reason is Reason.FORBIDDEN


@pytest.mark.parametrize(
    ("given", "authorization"),
    [
        ({"basic_auth": {"username": "me", "password": SECRET}}, BASIC),
        ({"bearer": {"token": SECRET}}, f"Bearer {SECRET}"),
        ({"bearer": {"token": SECRET, "scheme": "Token"}}, f"Token {SECRET}"),
    ],
)
async def test_credentials_are_sent_and_told_to_nobody(
    serve: Serve, tools: Tools, given: dict[str, Any], authorization: str
) -> None:
    port = await serve()
    notes: list[Note] = []
    config = HttpProbe.model_validate(
        {
            "http": f"http://127.0.0.1:{port}/echo",
            "expect": {"json": {"authorization": authorization}},
            **given,
        }
    )
    outcome = await http.probe(config, Context(timeout=2.0, tools=tools, notes=notes))

    assert outcome.reason is None, outcome.detail
    assert SECRET not in repr((outcome, notes, config.basic_auth, config.bearer))


async def test_a_password_file_is_read_for_each_run(serve: Serve, context: Context, tmp_path: Path) -> None:
    port = await serve()
    file = tmp_path / "secret"
    auth = {"username": "me", "password_file": str(file)}
    config = HttpProbe.model_validate(
        {
            "http": f"http://127.0.0.1:{port}/echo",
            "basic_auth": auth,
            "expect": {"json": {"authorization": BASIC}},
        }
    )
    reasons = []
    for content in (None, "other", f"{SECRET}\n", "two\nlines", ""):
        if content is not None:
            file.write_text(content)
        reasons.append((await http.probe(config, context)).reason)

    assert reasons == [Reason.INTERNAL, Reason.JSON, None, Reason.INTERNAL, Reason.INTERNAL]


async def test_a_user_in_the_address_is_sent_as_basic_auth(serve: Serve, context: Context) -> None:
    port = await serve()
    expect = {"json": {"authorization": BASIC}}

    assert (await ask(context, f"http://me:{SECRET}@127.0.0.1:{port}/echo", expect=expect)).reason is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_is_sent(serve: Serve, context: Context, method: str, tmp_path: Path) -> None:
    port = await serve()
    file = tmp_path / "body"
    file.write_text("from a file")
    more: dict[str, Any] = {
        "body_file": str(file),
        "expect": {"json": {"method": method, "body": "from a file"}},
    }
    if method == "HEAD":
        more = {"expect": {"headers": {"Content-Length": "[1-9]"}}}

    outcome = await ask(context, f"http://127.0.0.1:{port}/echo", method=method, **more)

    assert outcome.reason is None, outcome.detail


@pytest.mark.parametrize(
    ("path", "expect", "reason"),
    [
        ("data", {"json": {"load": {"less_than": 0.6, "at_least": 0.5}}}, None),
        ("data", {"json": {"load": {"less_than": 0.5}}}, Reason.JSON),
        ("data", {"json": {"load": {"at_least": 0.6}}}, Reason.JSON),
        ("data", {"json": {"load": {"at_most": 0.5}}}, None),
        ("data", {"json": {"load": {"at_most": 0.4}}}, Reason.JSON),
        ("data", {"json": {"name": {"less_than": 5}}}, Reason.JSON),
        ("data", {"json": {"nested.0.up": {"at_least": 0}}}, Reason.JSON),  # true is no number
        ("data", {"json": {"name": {"matches": "^shop-[0-9]$"}}}, None),
        ("data", {"json": {"name": {"matches": "^shop$"}}}, Reason.JSON),
        ("data", {"json": {"load": {"matches": "5"}}}, Reason.JSON),
        ("data", {"json": {"name": {"not": "shop-8"}}}, None),
        ("data", {"json": {"name": {"not": "shop-7"}}}, Reason.JSON),
        ("data", {"json": {"none": {"equals": None}, "load": {"exists": True}}}, None),
        ("data", {"json": {"load": {"equals": None}}}, Reason.JSON),
        ("data", {"json": {"nothing": {"exists": False}}}, None),
        ("data", {"json": {"none": {"exists": False}}}, Reason.JSON),
        ("data", {"json": {"queue": {"length": 3, "longer_than": 2}}}, None),
        ("data", {"json": {"queue": {"length": 2}}}, Reason.JSON),
        ("data", {"json": {"queue": {"longer_than": 3}}}, Reason.JSON),
        ("data", {"json": {"load": {"length": 1}}}, Reason.JSON),
        ("data", {"json": {".": {"length": 5}}}, None),
        ("data", {"headers_not": {"X-A": "two", "X-B": ""}}, None),
        ("data", {"headers_not": {"X-A": "one"}}, Reason.HEADER),
        ("data", {"headers_not": {"X-B": {"matches": "x", "optional": False}}}, Reason.HEADER),
        ("data", {"headers": {"X-B": {"matches": "x", "optional": True}}}, None),
        ("data", {"headers": {"x-a": ["^o", "e$"]}}, None),
        ("data", {"headers": {"X-A": ["^o", "x$"]}}, Reason.HEADER),
        ("data", {"body": ["load", "queue"], "body_not": ["error"]}, None),
        ("data", {"body": ["load", "nowhere"]}, Reason.BODY),
        ("data", {"body_not": "queue"}, Reason.BODY),
        ("latin", {"body": "^grün$"}, None),
        ("data", {"http_version": [1.1]}, None),
        ("data", {"http_version": "HTTP/1.0"}, Reason.PROTOCOL),
        ("data", {"secure": False}, None),
        ("data", {"secure": True}, Reason.PROTOCOL),
        ("steps/1", {"status": ["2xx", "3xx"]}, None),
        ("nowhere", {"status": ["2xx", 404]}, None),
    ],
)
async def test_expectations_are_held_against_the_answer(
    serve: Serve, context: Context, path: str, expect: dict[str, Any], reason: Reason | None
) -> None:
    port = await serve()

    outcome = await ask(context, f"http://127.0.0.1:{port}/{path}", expect=expect)

    assert outcome.reason is reason, outcome.detail


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
async def test_a_packed_body_is_unpacked_if_asked_for(
    serve: Serve, context: Context, compression: str
) -> None:
    port = await serve()

    outcome = await ask(
        context, f"http://127.0.0.1:{port}/packed", compression=compression, expect={"json": {"well": True}}
    )

    assert outcome.reason is None, outcome.detail


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({}, None),
        ({"ip_version": 6}, None),
        ({"ip_version": 4}, None),  # falls back
        ({"ip_version": 4, "ip_fallback": False}, Reason.DNS),
    ],
)
async def test_the_version_of_ip_can_be_chosen(
    serve: Serve, context: Context, choice: dict[str, Any], reason: Reason | None
) -> None:
    port = await serve("::1")

    outcome = await ask(context, f"http://[::1]:{port}/echo", **choice)

    assert outcome.reason is reason, outcome.detail


async def test_a_socket_file_is_spoken_to(context: Context, tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    runner = web.AppRunner(application(), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    expect = {"json": {"host": "shop.test"}}

    outcome = await ask(context, "http://shop.test/echo", socket=path, expect=expect)
    away = await ask(context, "http://shop.test/to?status=302&place=http://b.test/", socket=path, redirects=1)
    await runner.cleanup()
    gone = await ask(context, "http://shop.test/echo", socket=path + "2")

    assert outcome.reason is None, outcome.detail
    assert away.reason is Reason.REDIRECT
    assert gone.reason is Reason.CONNECT_FAILED


class Proxy:
    """A small proxy that keeps what it was asked."""

    def __init__(self, refuses: bool = False) -> None:
        self.heads: list[str] = []
        self._refuses = refuses

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, target, _ = head.split("\r\n")[0].split(" ")
        if self._refuses:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        if method == "CONNECT":
            port = int(target.rpartition(":")[2])
            inner_reader, inner = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            await asyncio.gather(self._pump(reader, inner), self._pump(inner_reader, writer))
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nproxied")
            writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            return
        finally:
            writer.close()


async def test_a_plain_address_is_asked_of_a_proxy_by_its_whole_name(context: Context) -> None:
    proxy = Proxy()
    async with await asyncio.start_server(proxy.talk, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        outcome = await ask(
            context,
            "http://nobody.invalid/path?a=b",
            proxy=f"http://me:{SECRET}@127.0.0.1:{port}",
            expect={"body": "proxied"},
        )

    assert outcome.reason is None, outcome.detail
    assert proxy.heads[0].startswith(
        "GET http://nobody.invalid/path?a=b HTTP/1.1\r\nHost: nobody.invalid\r\n"
    )
    assert f"Proxy-Authorization: {BASIC}\r\n" in proxy.heads[0]


async def test_a_tls_address_is_reached_through_a_tunnel(
    serve: Serve, context: Context, make_certificate: Callable[[int], tuple[Path, Path]]
) -> None:
    key, pem = make_certificate(30)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(pem, key)
    target = await serve(ssl_context=serving)
    proxy = Proxy()
    async with await asyncio.start_server(proxy.talk, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        outcome = await ask(
            context,
            f"https://localhost:{target}/echo",
            proxy=f"http://me:{SECRET}@127.0.0.1:{port}",
            tls={"ca_file": str(pem)},
            bearer={"token": "t"},
            expect={"secure": True, "json": {"authorization": "Bearer t"}},
        )

    assert outcome.reason is None, outcome.detail
    assert set(outcome.phases) == {"connect", "tls", "processing", "transfer"}
    assert f"Proxy-Authorization: {BASIC}\r\n" in proxy.heads[0]
    assert "Bearer" not in proxy.heads[0]


async def test_a_proxy_that_refuses_the_tunnel_is_named(context: Context) -> None:
    proxy = Proxy(refuses=True)
    async with await asyncio.start_server(proxy.talk, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        outcome = await ask(context, "https://nobody.invalid/", proxy=f"http://127.0.0.1:{port}")

    assert outcome.reason is Reason.CONNECT_FAILED
    assert outcome.detail == "the proxy answered 403"


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]", "[fe80::1]", "224.0.0.1"])
async def test_a_redirect_of_a_configured_target_reaches_no_metadata(
    serve: Serve, context: Context, host: str
) -> None:
    port = await serve()
    address = f"http://127.0.0.1:{port}/to?status=302&place=http://{host}/latest/meta-data"

    outcome = await ask(context, address, redirects=1)

    assert outcome.reason is Reason.FORBIDDEN
    assert outcome.detail.startswith(f"a redirect leads to {host.strip('[]')}, port 80, an address that is ")


async def test_a_redirect_of_this_machine_may_stay_on_it(serve: Serve, context: Context) -> None:
    port = await serve()
    place = f"http://localhost:{port}/steps/1"

    outcome = await ask(context, f"http://127.0.0.1:{port}/to?status=302&place={place}", redirects=2)

    assert outcome.reason is None


async def test_a_redirect_behind_a_proxy_does_not_lead_to_the_machine_of_the_proxy(context: Context) -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(redirect, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        outcome = await ask(context, "http://shop.example/", proxy=f"http://127.0.0.1:{port}", redirects=1)

    assert outcome.reason is Reason.FORBIDDEN
    assert "of this machine: only the configuration may name it" in outcome.detail


async def test_a_proxy_does_not_get_around_the_allow_list(tools: Tools) -> None:
    proxy = Proxy()
    async with await asyncio.start_server(proxy.talk, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        context = Context(timeout=2.0, tools=tools, gate=gate_of([f"127.0.0.1:{port}"]))
        outcome = await ask(context, "http://nobody.invalid/", proxy=f"http://127.0.0.1:{port}")

    assert outcome.reason is Reason.FORBIDDEN
    assert proxy.heads == []


async def test_tls_facts_tell_version_cipher_chain_and_fingerprint(
    serve: Serve, context: Context, make_certificate: Callable[[int], tuple[Path, Path]]
) -> None:
    key, pem = make_certificate(30)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(pem, key)
    port = await serve(ssl_context=serving)

    outcome = await ask(context, f"https://localhost:{port}/echo", tls={"ca_file": str(pem)})

    assert outcome.tls is not None
    assert outcome.tls.verified
    assert outcome.tls.version == "TLSv1.3"
    assert outcome.tls.cipher
    assert len(outcome.tls.fingerprint) == 64
    assert outcome.tls.chain_not_after == outcome.tls.not_after
    assert outcome.tls.not_after == pytest.approx(time.time() + 30 * 86400, abs=120)
    assert outcome.http is not None
    assert outcome.http.secure


async def test_the_authorities_are_loaded_once_for_all_names_of_servers(tools: Tools) -> None:
    contexts = {id(await tools.tls(Tls(server_name=name), within=5)) for name in (None, "a.test", "b.test")}

    assert len(contexts) == 1
    assert await tools.tls(Tls(verify=False), within=5) is not await tools.tls(Tls(), within=5)


async def test_a_tls_file_that_is_not_there_is_a_fault_of_ours(context: Context) -> None:
    outcome = await ask(context, "https://localhost:1/", tls={"ca_file": "/nowhere/ca.pem"})

    assert outcome.reason is Reason.INTERNAL


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        ({"method": "TRACE"}, "method: must be"),
        ({"redirects": 21}, "redirects: must be at most 20"),
        ({"headers": {"X A": "1"}}, "'X A' is not the name of a header"),
        ({"headers": {"Content-Length": "1"}}, "the header Content-Length belongs to the connection"),
        ({"body": "a", "body_file": "b"}, "write body or body_file, not both"),
        ({"basic_auth": {"username": "me"}}, "needs either password or password_file"),
        ({"basic_auth": {"username": "m:e", "password": "p"}}, "username must not contain ':'"),
        ({"bearer": {}}, "needs either token or token_file"),
        ({"bearer": {"token": "a\nb"}}, "a header must not contain control characters"),
        (
            {"bearer": {"token": "t"}, "basic_auth": {"username": "me", "password": "p"}},
            "write basic_auth or bearer, not both",
        ),
        ({"bearer": {"token": "t"}, "headers": {"authorization": "x"}}, "one of them"),
        ({"proxy": "https://proxy"}, "must be http://HOST:PORT"),
        ({"proxy": "http://proxy", "socket": "/run/a.sock"}, "write socket or proxy, not both"),
        ({"socket": "a.sock"}, "must be the absolute path of a socket file"),
        ({"ip_version": 5}, "ip_version: must be 4 or 6"),
        ({"compression": "zstd"}, "compression: must be 'gzip' or 'deflate'"),
        ({"body_limit": "1GiB"}, "body_limit: must be at most"),
        ({"method": "HEAD", "expect": {"body": "x"}}, "an answer to HEAD has no body"),
        ({"expect": {"status": "6xx"}}, "must be a status such as 200, or a class of them such as 2xx"),
        ({"expect": {"status": [True]}}, "must be a status such as 200"),
        ({"expect": {"body": "(?=x)"}}, "is not a regular expression of RE2"),
        ({"expect": {"body_not": "["}}, "is not a regular expression of RE2"),
        ({"expect": {"headers_not": {"X": "["}}}, "is not a regular expression of RE2"),
        ({"expect": {"http_version": 2}}, "http_version[0]: must be '1.0' or '1.1'"),
        ({"expect": {"json": {"a": {}}}}, "a check needs one of equals, not, matches"),
        ({"expect": {"json": {"a": {"above": 1}}}}, "unknown key"),
        ({"expect": {"json": {"a": {"exists": False, "equals": 1}}}}, "exists: false goes with nothing else"),
    ],
)
def test_mistakes_are_told_with_their_mend(tmp_path: Path, keys: dict[str, Any], mistake: str) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_text(json.dumps({"services": {"a": {"probes": [{"http": "http://x", **keys}]}}}))

    with pytest.raises(ConfigError) as caught:
        load_config(file, WatchConfig, {})

    assert mistake in str(caught.value)
