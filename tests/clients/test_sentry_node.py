"""The real @sentry/node, unchanged, with a DSN that leads to a real remediator."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

CLIENT = Path(__file__).parents[2] / "clients" / "node"
PROGRAM = """
const Sentry = require('@sentry/node');
Sentry.init({ dsn: process.argv[2], release: 'shop@1.2.3', tracesSampleRate: 1.0 });
const fail = () => { throw new TypeError('the till is stuck, token=' + 'abc' + '123abc123') };
const cases = {
  caught: () => { try { fail() } catch (error) { Sentry.captureException(error) } },
  uncaught: () => setTimeout(fail, 10),
  message: () => Sentry.captureMessage('no change left', 'fatal'),
  rejection: () => { Promise.reject(new RangeError('no price')) },
};
cases[process.argv[3]]();
setTimeout(() => Sentry.close(3000).then(() => process.exit(0)), 300);
"""


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return int(chosen.getsockname()[1])


def wait_until(fact: Callable[[], Any], within: float = 30.0) -> Any:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            found = fact()
        except requests.RequestException:
            found = None
        if found:
            return found
        time.sleep(0.05)
    return pytest.fail("did not happen in time")


@pytest.fixture(scope="module")
def remediator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a real remediator; yields host and port."""
    folder, listen, nobody = tmp_path_factory.mktemp("remediator"), free_port(), free_port()
    address = f"127.0.0.1:{listen}"
    config = {
        "exporter": {"listen": f"127.0.0.1:{nobody}"},
        "remediator": {"listen": address, "alertmanagers": [f"http://127.0.0.1:{nobody}"]},
        "services": {},
    }
    (folder / "soulfra.yml").write_text(yaml.safe_dump(config))
    files = ["--config", str(folder / "soulfra.yml"), "--data", str(folder / "data")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "remediator.cli", "remediator", *files], stdout=log, stderr=log
        )
    wait_until(lambda: requests.get(f"http://{address}/readyz", timeout=2).ok)
    yield address
    process.terminate()
    process.wait(20)


@pytest.mark.parametrize(
    ("case", "problem", "message"),
    [
        ("caught", None, "TypeError"),
        ("uncaught", "uncaught_exception", "TypeError"),
        ("message", None, "no change left"),
        ("rejection", "unhandled_rejection", "RangeError"),
    ],
)
def test_what_the_sdk_captures_becomes_an_error(
    *,
    packages: Path,
    node: str,
    remediator: str,
    tmp_path: Path,
    case: str,
    problem: str | None,
    message: str,
) -> None:
    service = f"{case}-{tmp_path.name[-2:]}-{Path(node).parts[-3]}"
    program = tmp_path / "app.js"
    program.write_text(PROGRAM)
    dsn = f"http://key@{remediator}/{service}/1"

    subprocess.run(
        [node, str(program), dsn, case],
        env={"PATH": "/usr/bin:/bin", "NODE_PATH": str(packages)},
        cwd=CLIENT,
        capture_output=True,
        timeout=60,
        check=False,
    )

    url = f"http://{remediator}/api/monitoring/errors"
    found = wait_until(lambda: requests.get(url, params={"service": service}, timeout=5).json()["errors"])
    (error,) = found
    assert message in error["message"]
    assert problem in (None, error["type"])
    detail = requests.get(f"{url}/{error['id']}", timeout=5).text
    assert "abc123" not in detail
    assert "shop@1.2.3" in detail
