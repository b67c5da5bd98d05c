"""The real sentry-sdk, unchanged, with a DSN that leads here."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.serving import make_server

from remediator.config import Role
from remediator.web import create_app
from remediator.web.access import Holder

PROGRAM = """
import logging, sys, threading
import sentry_sdk

sentry_sdk.init(dsn=sys.argv[1], traces_sample_rate=1.0, release="shop@1.2.3", **eval(sys.argv[3]))

def fail(password="hunter2" + "hunter2"):
    raise ValueError("the till is stuck, token=" + "abc" + "123abc123")

match sys.argv[2]:
    case "uncaught":
        fail()
    case "thread":
        worker = threading.Thread(target=fail)
        worker.start()
        worker.join()
    case "caught":
        try:
            try:
                1 / 0
            except ZeroDivisionError as error:
                raise RuntimeError("no price") from error
        except RuntimeError as error:
            sentry_sdk.capture_exception(error)
    case "log":
        logging.getLogger("shop").error("no %s left", "change")
    case "transaction":
        with sentry_sdk.start_transaction(op="x", name="y"):
            pass
sentry_sdk.flush(5)
"""


@pytest.fixture
def served(make_world: Callable[..., Any]) -> Iterator[Callable[..., tuple[Any, str]]]:
    servers: list[Any] = []

    def serve(*, key: str = "key", **options: Any) -> tuple[Any, str]:
        world = make_world(start=False, **options)
        server = make_server("127.0.0.1", 0, create_app(world.surroundings), threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return world, f"http://{key}@127.0.0.1:{server.server_port}/web/1"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def run(dsn: str, case: str, options: str = "{}") -> None:
    command = [sys.executable, "-c", PROGRAM, dsn, case, options]
    subprocess.run(command, capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("case", "problem", "message"),
    [
        ("uncaught", "uncaught_exception", "ValueError"),
        ("thread", "uncaught_exception", "ValueError"),
        ("caught", None, "RuntimeError"),
        ("log", None, "no change left"),
    ],
)
@pytest.mark.parametrize("packed", ["br", "gzip"])
def test_what_the_sdk_captures_becomes_an_error(
    served: Callable[..., tuple[Any, str]], case: str, problem: str | None, message: str, packed: str
) -> None:
    world, dsn = served()

    run(dsn, case, f"{{'_experiments': {{'transport_compression_algo': {packed!r}}}}}")

    error = world.error("web")
    assert message in error.message
    assert problem in (None, error.problem)
    assert error.fingerprint.startswith("v1.")
    told = repr(error) + repr(world.store.membership(error.id))
    assert "hunter2" not in told
    assert "abc123" not in told


def test_a_transaction_is_no_error(served: Callable[..., tuple[Any, str]]) -> None:
    world, dsn = served()

    run(dsn, "transaction")

    assert world.errors() == []
    assert world.count("soulfra_ingest_requests_total", endpoint="envelope", code="200") >= 1


def test_the_dsn_s_key_is_asked_for_where_there_are_tokens(served: Callable[..., tuple[Any, str]]) -> None:
    secret = "ingest-" + "k" * 20
    holders = {secret: Holder(name="sdk", role=Role.INGEST)}
    world, dsn = served(key=secret, holders=holders)

    run(dsn.replace(secret, "another" + "k" * 20), "caught")
    assert world.errors() == []
    run(dsn, "caught")
    assert len(world.errors("web")) == 1
