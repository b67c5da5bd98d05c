"""Kinds of probes that come from other distributions."""

import asyncio
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from exporter import probes
from exporter.app import Exporter, make_app
from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.kinds import plugin_of
from exporter.loading import load_config
from exporter.observation import Reason
from exporter.probes import probe_function
from exporter.reasons import OF_ANY, reasons_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "plugins.md"
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with one entry point, as pip would, into a folder of the path."""
    folder = tmp_path / "installed"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    modules: list[str] = []

    def put(kind: str, module: str, source: str) -> None:
        (folder / f"{module}.py").write_text(source)
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[soulfra_monitor.probes]\n{kind} = {module}\n")
        modules.append(module)

    yield put
    plugin_of.cache_clear()
    reasons_of.cache_clear()
    for module in modules:
        sys.modules.pop(module, None)


def documented() -> str:
    [source] = re.findall(r"`soulfra_echo.py`.*?```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    return str(source)


async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(line)
    writer.close()


async def test_the_documented_plugin_works_as_documented(
    tmp_path: Path, install: Install, until: Callable[..., Any]
) -> None:
    install("echo", "soulfra_echo", documented())
    server = await asyncio.start_server(mirror, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    file = tmp_path / "soulfra.yml"
    file.write_text(
        "exporter: {fast_path: false}\n"
        f"services: {{mirror: {{probes: [{{echo: '{address}', text: hello, timeout: 1s}}]}}}}\n"
    )
    exporter = Exporter(file, load_config(file, WatchConfig), "127.0.0.1:1")
    async with TestClient(TestServer(make_app(exporter))) as client:
        await exporter.start()
        await until(lambda: exporter.world.ready)

        assert exporter.world.services["mirror"].verdict == "up"
        async with client.get("/metrics") as answer:
            text = await answer.text()
        assert 'soulfra_probe_success{target="mirror",probe="echo"} 1' in text
        zeros = re.findall(
            r'soulfra_probe_failures_total\{target="mirror",probe="echo",reason="(\w+)"\} 0', text
        )
        assert set(zeros) >= {"connect_refused", "connect_timeout", "timeout", "reset", "answer"}

        server.close()
        seen = await exporter.check(["mirror"])
        await exporter.stop()
    assert seen["mirror"] is not None
    assert seen["mirror"]["echo"].reason is Reason.CONNECT_REFUSED


GOOD = """
from typing import ClassVar
from exporter.kinds import ProbeBase
class Config(ProbeBase):
    kind: ClassVar[str] = "tiny"
    tiny: str
async def probe(config, context):
    return context.progress().outcome()
"""


def test_a_plugin_that_names_no_reasons_starts_with_the_usual_ones(install: Install) -> None:
    install("tiny", "soulfra_tiny", GOOD)

    assert reasons_of("tiny") == OF_ANY
    assert probe_function("tiny").__module__ == "soulfra_tiny"


async def test_a_plugin_that_never_answers_is_given_up_and_no_evidence(
    tmp_path: Path, install: Install, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "PATIENCE", 0.2)
    hangs = "import asyncio\n" + GOOD.replace("    return", "    await asyncio.Event().wait()\n    return")
    install("tiny", "soulfra_tiny", hangs)
    file = tmp_path / "soulfra.yml"
    file.write_text(
        "exporter: {fast_path: false}\nservices: {a: {probes: [{tiny: x, timeout: 100ms, confirm: 1}]}}\n"
    )
    exporter = Exporter(file, load_config(file, WatchConfig), "127.0.0.1:1")
    await exporter.start()
    await until(lambda: exporter.world.ready, 5)
    last = exporter.world.services["a"].probes["tiny"].last
    await exporter.stop()

    assert last is not None
    assert last.reason is Reason.INTERNAL
    assert last.seconds < 2


@pytest.mark.parametrize(
    ("source", "mistake"),
    [
        ("1 / 0", "the plugin soulfra_tiny cannot be loaded: ZeroDivisionError: division by zero"),
        ("import absent_library", "the plugin soulfra_tiny cannot be loaded: ModuleNotFoundError"),
        ("", "the plugin soulfra_tiny has no Config, a ProbeBase with the field tiny"),
        ("Config = dict", "the plugin soulfra_tiny has no Config, a ProbeBase with the field tiny"),
        (GOOD.replace("tiny: str", "other: str"), "has no Config, a ProbeBase with the field tiny"),
        (GOOD.replace('"tiny"', '"big"'), "needs Config.kind 'tiny' and a function probe"),
        (GOOD.replace("def probe", "def look"), "needs Config.kind 'tiny' and a function probe"),
    ],
)
def test_a_broken_plugin_is_a_mistake_and_not_a_traceback(
    tmp_path: Path, install: Install, source: str, mistake: str
) -> None:
    install("tiny", "soulfra_tiny", source)
    file = tmp_path / "soulfra.yml"
    file.write_text("services: {a: {probes: [{tiny: x}]}}")

    with pytest.raises(ConfigError) as caught:
        load_config(file, WatchConfig)

    [found] = caught.value.mistakes
    assert (found.line, found.place) == (1, "services.a.probes[0]")
    assert mistake in found.message


def test_mistakes_in_the_configuration_of_a_plugin_have_their_places(
    tmp_path: Path, install: Install
) -> None:
    install("tiny", "soulfra_tiny", GOOD)
    file = tmp_path / "soulfra.yml"
    file.write_text("services:\n  a:\n    probes:\n      - {tiny: 5, size: 2}\n")

    with pytest.raises(ConfigError) as caught:
        load_config(file, WatchConfig)

    found = [(mistake.line, mistake.place) for mistake in caught.value.mistakes]
    assert found == [(4, "services.a.probes[0].size"), (4, "services.a.probes[0].tiny")]


def test_a_plugin_cannot_take_the_name_of_a_kind_that_is_here(tmp_path: Path, install: Install) -> None:
    install("tcp", "soulfra_tiny", "raise SystemExit")
    file = tmp_path / "soulfra.yml"
    file.write_text("services: {a: {probes: [{tcp: '127.0.0.1:1'}]}}")

    assert load_config(file, WatchConfig).services["a"].probes[0].kind == "tcp"
