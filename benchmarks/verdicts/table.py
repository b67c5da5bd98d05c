"""Runs the table against a blackbox_exporter and against ours, and holds the verdicts against each other."""

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.verdicts.cases import CASES, Case
from benchmarks.verdicts.certificates import Certificates, make_certificates
from benchmarks.verdicts.servers import PASSWORD, TOKEN, USER, closed_port, running

ROOT = Path(__file__).resolve().parents[2]
BLACKBOX = "prometheus-blackbox-exporter"
AT_ONCE = 12
_START_WITHIN = 20.0
COMPARED = frozenset(
    {
        *("probe_ip_protocol", "probe_ip_addr_hash", "probe_failed_due_to_regex"),
        *("probe_http_status_code", "probe_http_version", "probe_http_ssl", "probe_http_redirects"),
        *("probe_http_content_length", "probe_http_uncompressed_body_length"),
        *("probe_http_last_modified_timestamp_seconds", "probe_ssl_earliest_cert_expiry"),
        *("probe_ssl_last_chain_expiry_timestamp_seconds", "probe_dns_query_succeeded", "probe_dns_serial"),
        *("probe_dns_answer_rrs", "probe_dns_authority_rrs", "probe_dns_additional_rrs"),
        *("probe_grpc_status_code", "probe_grpc_ssl", "probe_grpc_healthcheck_response"),
    }
)
"""Series whose values the target alone decides: no times, no names of the library."""
_ZERO_OR_NONE = frozenset({"probe_failed_due_to_regex", "probe_ssl_earliest_cert_expiry"})
"""Where nothing was seen, 0.23 says 0 and 0.28 says nothing."""
_SCRAPE_TIMEOUT = "8"
_SAMPLE = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)
_OPEN = ("127.0.0.0/8", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an exporter answers for a case."""

    success: bool | None  # None: it did not answer with metrics
    values: Mapping[str, float] = field(default_factory=dict)  # of COMPARED, by name and labels
    note: str = ""

    @property
    def regex(self) -> bool:
        """Whether it says that a regular expression is why the probe failed."""
        return self.values.get("probe_failed_due_to_regex") == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A case and both verdicts."""

    case: Case
    blackbox: Verdict
    ours: Verdict

    @property
    def mistakes(self) -> list[str]:
        """What is not as the table says."""
        case, there, here = self.case, self.blackbox, self.ours
        wanted = case.success if case.ours is None else case.ours
        found = []
        if there.success is not case.success:
            found.append(f"blackbox_exporter says {there.success}, the table {case.success}")
        if here.success is not wanted:
            found.append(f"ours says {here.success} ({here.note}), the table {wanted}")
        if there.regex is not case.regex:
            found.append(f"blackbox_exporter says regex {there.regex}, the table {case.regex}")
        return found + (self._other_values() if case.ours is None else [])

    def _other_values(self) -> list[str]:
        found = []
        named = {*self.blackbox.values, *self.ours.values, *self.case.different}
        for name in sorted(named - self.case.chance):
            there, here = self.blackbox.values.get(name), self.ours.values.get(name)
            if name in self.case.different and there == here:
                found.append(f"{name} is {here}, as there, and the table says that it differs")
            elif name not in self.case.different and there != here:
                found.append(f"{name} is {here}, there {there}")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Everything around the exporters: ports, files, and both configurations."""

    folder: Path
    values: Mapping[str, Any]
    cases: Sequence[Case]
    http: aiohttp.ClientSession

    def module_of(self, case: Case) -> Any:
        """Return the module of *case* with ports and files in place."""
        return _filled(case.module, self.values)


def version_of(text: str) -> tuple[int, int]:
    """Return the version that ``--version`` prints."""
    found = re.search(r"version (\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


async def run_table(program: str, folder: Path, cases: Iterable[Case] = CASES) -> list[Row]:
    """Ask both exporters for every case that this blackbox_exporter can do."""
    version = version_of(await _output(program, "--version"))
    able = [case for case in cases if case.since <= version]
    async with setting(folder, able) as around:
        theirs = await _start_blackbox(around, program)
        async with theirs as there, _exporter(around) as here:
            gate = asyncio.Semaphore(AT_ONCE)

            async def row(case: Case) -> Row:
                async with gate:
                    blackbox = await _ask(around, there, case)
                    return Row(case=case, blackbox=blackbox, ours=await _ask(around, here, case))

            return list(await asyncio.gather(*map(row, able)))


@asynccontextmanager
async def setting(folder: Path, cases: Sequence[Case]) -> AsyncIterator[Setting]:
    """Start the servers, and write the files that modules name."""
    certificates = await asyncio.to_thread(make_certificates, folder)
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(running(certificates))
        ports: dict[str, int] = {**servers.ports, "dns": closed_port(), "grpc": 0}
        await stack.enter_async_context(_dnsmasq(ports["dns"]))
        ports["grpc"] = await stack.enter_async_context(_health_server())
        session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        await stack.enter_async_context(session)
        values = {**ports, **_files(folder, certificates)}
        yield Setting(folder=folder, values=values, cases=cases, http=session)


def _files(folder: Path, made: Certificates) -> Mapping[str, str]:
    texts = {"password_file": PASSWORD, "token_file": TOKEN, "body_file": "ping"}
    for name, text in texts.items():
        (folder / name).write_text(text)
    paths = {"ca": made.authority.cert, "client_cert": made.client.cert, "client_key": made.client.key}
    files = {name: str(path) for name, path in paths.items()} | {name: str(folder / name) for name in texts}
    return {**files, "user": f"{USER}:{PASSWORD}"}


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return value.format(**values)
    if isinstance(value, Mapping):
        return {key: _filled(item, values) for key, item in value.items()}
    return [_filled(item, values) for item in value] if isinstance(value, list) else value


async def _start_blackbox(around: Setting, program: str) -> Any:
    file = around.folder / "blackbox.yml"
    modules = {case.name: around.module_of(case) for case in around.cases}
    file.write_text(yaml.safe_dump({"modules": modules}, width=1000))
    port = closed_port()
    return _process(port, around, program, f"--config.file={file}", f"--web.listen-address=127.0.0.1:{port}")


def _exporter(around: Setting) -> Any:
    """Start ours with the very file that blackbox_exporter reads."""
    file = around.folder / "soulfra.yml"
    section = {"modules_file": "blackbox.yml", "allow_targets": list(_OPEN), "fast_path": False}
    file.write_text(yaml.safe_dump({"exporter": section}))
    port = closed_port()
    ours = (sys.executable, "-m", "remediator.cli", "exporter", "--log-level", "warning")
    return _process(port, around, *ours, "--config", str(file), "--listen", f"127.0.0.1:{port}")


@asynccontextmanager
async def _process(port: int, around: Setting, *argv: str) -> AsyncIterator[str]:
    """Run a program until it is healthy, and end it; yields its address."""
    log = (around.folder / f"{Path(argv[0]).name}.log").open("wb")
    process = await asyncio.create_subprocess_exec(*argv, cwd=ROOT, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        await _healthy(around.http, address, process)
        yield address
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        log.close()


async def _healthy(http: aiohttp.ClientSession, address: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(_START_WITHIN):
        while process.returncode is None:
            try:
                async with http.get(f"{address}/-/healthy"):
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.05)
    raise RuntimeError(f"a program ended by itself with status {process.returncode}; its log says why")


async def _ask(around: Setting, address: str, case: Case) -> Verdict:
    query = {"module": case.name, "target": case.target.format(**around.values)}
    if case.hostname:
        query["hostname"] = case.hostname
    headers = {"X-Prometheus-Scrape-Timeout-Seconds": _SCRAPE_TIMEOUT}
    async with around.http.get(f"{address}/probe", params=query, headers=headers) as answer:
        text = await answer.text()
    values = {name: float(value) for name, value in _SAMPLE.findall(text)}
    reason = re.search(r'^probe_failure_info\{.*reason="(\w+)"', text, re.MULTILINE)
    if "probe_success" not in values:
        return Verdict(success=None, note=f"{answer.status}: {text.strip()[:100]}")
    return Verdict(
        success=values["probe_success"] == 1,
        values={name: value for name, value in values.items() if _is_compared(name, value)},
        note=reason[1] if reason else "",
    )


def _is_compared(sample: str, value: float) -> bool:
    name = sample.partition("{")[0]
    return name in COMPARED and (value != 0 or name not in _ZERO_OR_NONE)


@asynccontextmanager
async def _dnsmasq(port: int) -> AsyncIterator[None]:
    program = shutil.which("dnsmasq")
    if program is None:
        raise FileNotFoundError("dnsmasq is not installed")
    records = ("--host-record=shop.test,192.0.2.7,2001:db8::7", "--txt-record=shop.test,hello")
    quiet = ("--no-resolv", "--no-hosts", "--local=/test/", "--conf-file=/dev/null", "--pid-file=")
    where = (f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces", "--user=root")
    argv = (program, "--keep-in-foreground", *where, *quiet, *records)
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL)
    try:
        await _listens(port, process)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(_START_WITHIN):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
    raise RuntimeError(f"dnsmasq ended by itself with status {process.returncode}")


@asynccontextmanager
async def _health_server() -> AsyncIterator[int]:
    from grpc import aio  # noqa: PLC0415 - an extra; heavy
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # noqa: PLC0415

    states = health_pb2.HealthCheckResponse
    servicer = health.aio.HealthServicer()
    for service, state in (("", states.SERVING), ("shop", states.SERVING), ("till", states.NOT_SERVING)):
        await servicer.set(service, state)
    server = aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def _output(*argv: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    text, _ = await process.communicate()
    return text.decode()
