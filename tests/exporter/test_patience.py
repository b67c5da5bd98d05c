"""Files that hang, as on a dead network filesystem, hold nobody up but those who need them."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter import asking
from exporter.asking import FileReader, HttpReader
from exporter.discovered import Failure, Found
from exporter.kinds import Tls
from exporter.kinds.grpc import GrpcProbe
from exporter.kinds.tcp import TcpProbe
from exporter.observation import Reason
from exporter.probes import context as contexts
from exporter.probes import tcp
from exporter.probes.context import Context, Tools
from exporter.sources import FileSd, HttpSd

MANY = 40  # more than the loop has threads for everybody


@pytest.fixture
def hangs(tmp_path: Path) -> Iterator[Path]:
    """Make a file that no read comes back from until the test is over."""
    pipe = tmp_path / "hangs"
    os.mkfifo(pipe)
    yield pipe
    handle = os.open(pipe, os.O_RDWR)  # ends the waiting of all readers
    while any(thread.name == "patience" for thread in threading.enumerate()):
        os.close(handle)
        handle = os.open(pipe, os.O_RDWR)
    os.close(handle)


async def others_go_on() -> None:
    """Do what a scrape and a reload do: work in a thread of everybody."""
    async with asyncio.timeout(5):
        await asyncio.gather(*(asyncio.to_thread(int) for _ in range(MANY)))


async def test_secrets_that_hang_are_a_failure_of_their_source_alone(
    hangs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "FILES_WITHIN", 0.3)
    place = HttpSd(url="http://127.0.0.1:1/", bearer_token_file=hangs.name)
    reading = [asyncio.create_task(HttpReader(place, hangs.parent, 30.0).read()) for _ in range(MANY)]
    await asyncio.sleep(0)

    await others_go_on()
    answers = await asyncio.gather(*reading)

    assert [failure.failure for answer in answers for failure in answer.failures] == [Failure.TIMEOUT] * MANY


async def test_targets_that_hang_are_a_failure_and_the_last_ones_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.json"
    file.write_text('[{"targets": ["h:1"]}]')
    reader = FileReader(FileSd(files=(file.name,)), tmp_path)
    known = (await reader.read()).found
    released, read = threading.Event(), asking._content_of

    def hang(path: Path) -> Found:
        released.wait(30)
        return read(path)

    monkeypatch.setattr(asking, "FILES_WITHIN", 0.1)
    monkeypatch.setattr(asking, "_content_of", hang)
    file.write_text('[{"targets": ["h:1", "h:2"]}]')

    late = await reader.read()
    still = await reader.read()
    released.set()
    monkeypatch.setattr(asking, "FILES_WITHIN", 10.0)
    after = await reader.read()

    assert (late.found, still.found) == (known, known)
    assert [str(failure) for failure in (*late.failures, *still.failures)] == [
        "its files cannot be read within 0.1 s"
    ] * 2
    assert [target.address for target in after.found.targets] == ["h:1", "h:2"]


async def test_a_certificate_that_hangs_is_no_fault_of_the_peer(hangs: Path, tools: Tools) -> None:
    grpc = pytest.importorskip("exporter.probes.grpc")
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        tls = {"ca_file": str(hangs)}
        config = GrpcProbe.model_validate({"grpc": f"127.0.0.1:{port}", "tls": tls})
        tools._contexts[Tls(ca_file=str(hangs))] = contexts._tls_context(Tls(verify=False))
        probing = [grpc.probe(config, Context(timeout=0.5, tools=tools)) for _ in range(MANY)]
        outcomes = asyncio.gather(*probing)
        await asyncio.sleep(0)
        await others_go_on()

    assert {outcome.reason for outcome in await outcomes} <= {Reason.INTERNAL, Reason.TIMEOUT, Reason.RESET}


async def test_an_authority_that_hangs_holds_nobody_up_and_is_no_fault_of_the_peer(
    hangs: Path, tools: Tools
) -> None:
    config = TcpProbe.model_validate({"tcp": "127.0.0.1:1", "tls": {"ca_file": str(hangs)}})
    outcomes = asyncio.gather(*(tcp.probe(config, Context(timeout=0.4, tools=tools)) for _ in range(MANY)))
    await asyncio.sleep(0)
    await others_go_on()

    assert {(outcome.reason, outcome.detail) for outcome in await outcomes} == {
        (Reason.INTERNAL, "the files of tls could not be read in time")
    }
    assert len([one for one in threading.enumerate() if one.name == "patience"]) == 1
    await tools.close()
    assert not tools._making


async def test_a_reload_goes_on_with_the_contexts_in_use_while_certificates_hang(
    hangs: Path, tools: Tools, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(contexts, "RENEWED_WITHIN", 0.1)
    config = Tls(ca_file=str(hangs))
    made = tools._contexts[config] = contexts._tls_context(Tls(verify=False))

    await tools.renew()

    assert await tools.tls(config, within=5) is made
    assert "those in use stay until the next reload" in caplog.text
