"""The schema of /metrics: every metric, its labels, and what of it changes or vanishes when."""

import asyncio
import gzip
import json
import re
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from exporter import answers, scrape, snapshots, streaming
from exporter.counters import Counters
from exporter.observation import (
    HttpFacts,
    Measure,
    Observation,
    Outcome,
    ProcessFacts,
    ProcessStatus,
    Reading,
    Reason,
    TlsFacts,
)
from exporter.probes import PROBES
from exporter.reasons import reasons_of
from exporter.scrape import Scrapes
from exporter.snapshots import Snapshots
from exporter.state import ProbeState, ServiceState, Settings, WorldState

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
SETTINGS = Settings(interval=5.0, interval_on_failure=0.5, timeout=2.0, confirm=3)
TLS = TlsFacts(not_after=1_900_000_000.0, verified=True, version="TLSv1.3")
HTTP = HttpFacts(status=200, redirects=1)
PHASES = {"resolve": 0.001, "connect": 0.002, "tls": 0.003, "processing": 0.004, "transfer": 0.005}
FACTS = ProcessFacts(
    pid=1,
    start_time=1_700_000_000.0,
    status=ProcessStatus.RUNNING,
    **{fact.name: 1 for fact in fields(ProcessFacts) if fact.default is None},
)
LENGTH = Measure(name="queue_length", help="Items that wait.", labels=("queue",))
PROCESSED = Measure(name="queue_processed", help="Items that were taken.", type="counter")

Client = TestClient[Any, Any]
Values = dict[str, float]
Parse = Callable[[str], Any]
parse_text: Parse = parser.text_string_to_metric_families
parse_openmetrics: Parse = openmetrics_parser.text_string_to_metric_families


def world_of(*services: ServiceState) -> WorldState:
    world = WorldState(started_at=time.time())
    edge = ProbeState(kind="tcp", settings=SETTINGS)
    edge.record(run())
    world.watch({service.target: service for service in services}, {("shop", "bank"): edge})
    return world


def service(target: str = "shop", kind: str = "http", **more: Any) -> ServiceState:
    probes = {kind: ProbeState(kind=kind, settings=SETTINGS)}
    return ServiceState(
        target=target, timeout_threshold=1.0, error_threshold=3, since=0.0, probes=probes, **more
    )


def run(reason: Reason | None = None, *, ago: float = 0.0, **facts: Any) -> Observation:
    outcome = Outcome(reason=reason, **facts)
    return Observation(started=time.monotonic() - ago, at=time.time() - ago, seconds=0.02, outcome=outcome)


async def text_of(world: WorldState, *, openmetrics: bool = False, counters: Counters | None = None) -> str:
    made = Snapshots(world, counters or Counters())
    return "".join(made.pieces(await made.take(), openmetrics=openmetrics))


def values_in(text: str) -> Values:
    lines = [line for line in text.split("\n") if line and not line.startswith("#")]
    values = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert len(values) == len(lines), "a series is there twice"
    return values


async def values_of(world: WorldState) -> Values:
    return values_in(await text_of(world))


def full_world() -> WorldState:
    """Make a world in which every metric of the schema has a sample."""
    shop, ledger = service(host='a"b\\c'), service("ledger", "process")
    readings = (Reading(LENGTH, 4, ('in "box"\n',)), Reading(PROCESSED, 17))
    shop.record("http", run(phases=PHASES, tls=TLS, http=HTTP, readings=readings))
    ledger.record("process", run(process=FACTS))
    disk = service("disk", "filesystem")
    for _ in range(SETTINGS.confirm):
        disk.record("filesystem", run(Reason.LIMIT))
    unseen = service("unseen", "file")
    for _ in range(SETTINGS.confirm):
        unseen.record("file", run(Reason.INTERNAL))
    return world_of(shop, ledger, disk, unseen)


def full_counters() -> Counters:
    counters = Counters()
    counters.posts["http://127.0.0.1:1"] = 1
    return counters


async def schema() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return type and labels of every metric that the exporter itself brings."""
    found = {}
    for family in parse_text(await text_of(full_world(), counters=full_counters())):
        assert family.samples, f"{family.name} has no sample here: let full_world give it one"
        labels = dict.fromkeys(name for sample in family.samples for name in sample.labels if name != "le")
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if name.startswith("soulfra_") and "queue" not in name:
            found[name] = family.type, tuple(labels)
    return found


def modules_of_kinds() -> Iterator[ModuleType]:
    for module in set(PROBES.values()):
        with suppress(ImportError):  # a kind whose extra is not installed
            yield import_module(module)


def measures() -> Iterator[Measure]:
    """Find the metrics that the kinds of probes bring, in the constants of their modules."""
    for module in modules_of_kinds():
        for value in vars(module).values():
            yield from _measures_in(value)


def _measures_in(value: object) -> Iterator[Measure]:
    if isinstance(value, Measure):
        yield value
    elif isinstance(value, tuple | list | set | frozenset):
        for item in value:
            yield from _measures_in(item)
    elif isinstance(value, dict):
        yield from _measures_in(tuple(value.values()))


# The schema


def lint(promtool: str, text: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [promtool, "check", "metrics"], check=False, input=text, capture_output=True, encoding="utf-8"
    )
    return done.returncode, done.stdout, done.stderr


async def test_both_formats_say_the_same_and_promtool_finds_nothing_to_say(
    binary: Callable[[str], str],
) -> None:
    world, counters = full_world(), full_counters()
    text = await text_of(world, counters=counters)
    openmetrics = await text_of(world, openmetrics=True, counters=counters)

    def content(families: Any) -> dict[str, Any]:
        return {
            family.name: (family.type, family.documentation, [(s.name, s.labels) for s in family.samples])
            for family in families
        }

    assert lint(binary("promtool"), text) == (0, "", "")
    assert content(parse_text(text)) == content(parse_openmetrics(openmetrics))
    assert openmetrics.endswith("\n# EOF\n")


LABELS = {"target", "probe", "reason", "problem", "phase", "source", "destination"}
OTHERS = {
    "soulfra_target_info": {"host"},  # and what the user adds
    "soulfra_probe_tls_info": {"version"},
    "soulfra_exporter_build_info": {"version"},
    "soulfra_exporter_internal_errors_total": {"place"},
    "soulfra_exporter_fast_path_posts_total": {"alertmanager"},
    "soulfra_exporter_fast_path_failures_total": {"alertmanager"},
}


async def test_no_metric_has_a_label_beyond_the_design() -> None:
    beyond = {name: set(labels) - LABELS for name, (_, labels) in (await schema()).items()}

    assert {name: labels for name, labels in beyond.items() if labels} == OTHERS


FORBIDDEN = {"job", "instance", "type", "service", "env", "cluster", "region", "owner", "le", *LABELS}


def test_no_kind_brings_a_label_that_belongs_to_others() -> None:
    assert not [measure.name for measure in measures() if set(measure.labels) & FORBIDDEN]


def test_every_metric_of_every_kind_may_be_exposed() -> None:
    assert not [measure.name for measure in measures() if snapshots.title_of(measure) is None]


def test_kinds_with_the_same_metric_agree_on_what_it_is() -> None:
    meanings = defaultdict(set)
    for measure in measures():
        meanings[measure.name].add((measure.type, measure.help, measure.labels))

    assert not {name for name, found in meanings.items() if len(found) > 1}


async def test_the_documentation_lists_every_metric_and_no_other() -> None:
    wanted = {name: (kind, ", ".join(labels)) for name, (kind, labels) in (await schema()).items()}
    for measure in measures():
        name = f"soulfra_{measure.name}" + ("_total" if measure.type == "counter" else "")
        wanted[name] = measure.type, ", ".join(("target", "probe", *measure.labels))
    rows = re.findall(r"^\| `(soulfra_\w+)` \| (\w+) \| ([\w, ]*?) ?\|", DOCS.read_text(), re.MULTILINE)
    written = {name: (kind, labels) for name, kind, labels in rows}

    missing = [
        f"| `{name}` | {kind} | {labels} |" for name, (kind, labels) in wanted.items() if name not in written
    ]
    assert not missing, "write into docs/metrics.md:\n" + "\n".join(missing)
    if len(list(modules_of_kinds())) == len(set(PROBES.values())):
        assert written == wanted
    assert len(rows) == len(written)


REFERENCE = """
probe_success probe_attempts_total probe_failures_total probe_duration_seconds probe_phase_duration_seconds
probe_last_run_timestamp_seconds probe_last_success_timestamp_seconds probe_interval_seconds
probe_tls_not_after_timestamp_seconds probe_tls_verified target_info
process_cpu_seconds_total process_resident_memory_bytes process_memory_limit_bytes process_open_fds
process_max_fds
process_threads process_start_time_seconds process_num_procs process_worst_fd_ratio
container_running container_restarts_total container_memory_working_set_bytes container_memory_limit_bytes
container_oom_kills_total filesystem_avail_bytes filesystem_size_bytes file_mtime_timestamp_seconds
dependency_success dependency_attempts_total dependency_failures_total dependency_duration_seconds
queue_length queue_processed_total queue_oldest_item_timestamp_seconds
exporter_build_info exporter_config_last_reload_successful
exporter_config_last_reload_success_timestamp_seconds
exporter_targets exporter_probes_in_progress exporter_schedule_lag_seconds exporter_event_loop_lag_seconds
exporter_probes_skipped_total
"""


async def test_every_metric_that_an_operator_expects_is_there() -> None:
    # Those of heartbeats are the remediator's: it takes them in and keeps them over restarts.
    read = {f"soulfra_{one.name}{'_total' * (one.type == 'counter')}" for one in measures()}

    assert not {f"soulfra_{name}" for name in REFERENCE.split()} - read - (await schema()).keys()


# What is exposed when


def at(name: str, **labels: str) -> str:
    inside = ",".join(
        f'{key}="{value}"' for key, value in {"target": "shop", "probe": "http", **labels}.items()
    )
    return f"soulfra_{name}{{{inside}}}"


async def test_a_probe_that_never_ran_counts_from_zero_for_every_reason_it_can_give() -> None:
    values = await values_of(world_of(service()))

    assert at("probe_success") not in values
    assert values[at("probe_attempts_total")] == 0
    assert values[at("probe_unconfirmed_failures_total")] == 0
    assert values[at("probe_last_run_timestamp_seconds")] == 0
    given = {name for name in values if name.startswith("soulfra_probe_failures_total")}
    assert given == {at("probe_failures_total", reason=reason) for reason in reasons_of("http")}


async def test_the_facts_of_the_last_run_are_told() -> None:
    values = await values_of(full_world())

    assert values[at("probe_tls_not_after_timestamp_seconds")] == 1_900_000_000
    assert values[at("probe_tls_verified")] == 1
    assert values[at("probe_tls_info", version="TLSv1.3")] == 1
    assert values[at("probe_http_status_code")] == 200
    assert values[at("probe_http_redirects")] == 1
    assert values[at("probe_interval_on_failure_seconds")] == 0.5
    assert values[at("probe_confirmations")] == 3
    assert values[at("probe_phase_duration_seconds", phase="tls")] == 0.003
    assert values[at("queue_length", queue='in \\"box\\"\\n')] == 4
    assert values[at("queue_processed_total")] == 17


async def test_facts_of_what_cannot_be_read_any_more_vanish_but_the_certificate_s_end() -> None:
    world = full_world()
    world.record("shop", "http", run(Reason.CONNECT_REFUSED))

    values = await values_of(world)

    assert values[at("probe_tls_not_after_timestamp_seconds")] == 1_900_000_000
    gone = ("tls_verified", "tls_info", "http_", "phase", "queue_")
    assert not [name for name in values if any(f"probe_{part}" in name for part in gone) or "queue" in name]


async def test_readings_vanish_when_the_probe_stops_running() -> None:
    shop = service()
    shop.record("http", run(ago=31.0, readings=(Reading(PROCESSED, 17),)))
    assert at("queue_processed_total") in await values_of(world_of(shop))

    late = service()
    late.record("http", run(ago=33.0, readings=(Reading(PROCESSED, 17),)))
    assert at("queue_processed_total") not in await values_of(world_of(late))


async def test_a_reason_that_no_table_knows_is_counted_all_the_same() -> None:
    shop = service()
    shop.record("http", run(Reason.STUCK))

    assert (await values_of(world_of(shop)))[at("probe_failures_total", reason="stuck")] == 1


async def test_unconfirmed_failures_are_one_series() -> None:
    shop = service()
    for reason in (Reason.TIMEOUT, Reason.STATUS, None):
        shop.record("http", run(reason))

    assert (await values_of(world_of(shop)))[at("probe_unconfirmed_failures_total")] == 2


async def test_a_gone_process_has_no_processes_and_no_resources() -> None:
    world = full_world()
    world.record("ledger", "process", run(Reason.GONE))

    values = {name: value for name, value in (await values_of(world)).items() if "soulfra_process" in name}

    assert values == {'soulfra_process_num_procs{target="ledger"}': 0}


REFUSED = [
    (Reading(Measure(name="probe_success", help=""), 1)),
    (Reading(Measure(name="probe_duration_seconds_count", help=""), 1)),
    (Reading(Measure(name="probe_attempts", help="", type="counter"), 1)),
    (Reading(Measure(name="exporter_targets", help=""), 1)),
    (Reading(Measure(name="a-b", help=""), 1)),
    (Reading(Measure(name="a", help="", labels=("le",)), 1, ("x",))),
    (Reading(Measure(name="a", help="", labels=("target",)), 1, ("x",))),
    (Reading(Measure(name="a", help="", labels=("__x",)), 1, ("x",))),
    (Reading(Measure(name="a", help="", labels=("x",)), 1)),
    (Reading(Measure(name="a", help="", type="counter"), -1)),
    (Reading(Measure(name="a", help="", type="counter"), float("nan"))),
]


@pytest.mark.parametrize("reading", REFUSED, ids=lambda reading: str(reading.measure.name))
async def test_a_reading_that_would_spoil_the_scrape_is_refused_and_counted(reading: Reading) -> None:
    shop = service()
    shop.record("http", run(readings=(reading, Reading(PROCESSED, 17))))

    text = await text_of(world_of(shop), openmetrics=True)

    assert len(list(parse_openmetrics(text))) > 20
    values = values_in(text)
    assert values["soulfra_exporter_readings_refused"] == 1
    assert values[at("queue_processed_total")] == 17


async def test_a_gauge_and_a_counter_of_one_name_do_not_spoil_openmetrics() -> None:
    shop, bank = service(), service("bank")
    shop.record("http", run(readings=(Reading(Measure(name="jobs", help=""), 5),)))
    bank.record("http", run(readings=(Reading(Measure(name="jobs", help="", type="counter"), 7),)))

    text = await text_of(world_of(shop, bank), openmetrics=True)

    assert len([one for one in parse_openmetrics(text) if one.name == "soulfra_jobs"]) == 1
    assert values_in(text)["soulfra_exporter_readings_refused"] == 1


async def test_of_two_metrics_with_one_name_the_first_is_exposed() -> None:
    shop, bank = service(), service("bank")
    shop.record("http", run(readings=(Reading(PROCESSED, 1), Reading(PROCESSED, 2))))
    gauge = Measure(name="queue_processed_total", help="")
    bank.record("http", run(readings=(Reading(gauge, 5),)))

    values = await values_of(world_of(shop, bank))

    assert {name: value for name, value in values.items() if "queue" in name} == {
        at("queue_processed_total"): 2
    }
    assert values["soulfra_exporter_readings_refused"] == 2


# Snapshots


async def test_what_ran_again_is_written_anew_and_what_did_not_is_kept() -> None:
    shop, bank = service(), service("bank")
    world = world_of(shop, bank)
    made = Snapshots(world, Counters())
    first = await made.take()
    world.record("shop", "http", run(Reason.STATUS))
    second = await made.take()

    assert [after is before for after, before in zip(second.probes, first.probes, strict=True)] == [
        False,
        True,
    ]
    assert [after is before for after, before in zip(second.services, first.services, strict=True)] == [
        True,
        True,
    ]
    values = values_in("".join(made.pieces(second, openmetrics=False)))
    assert values[at("probe_failures_total", reason="status")] == 1
    before = values_in("".join(made.pieces(first, openmetrics=False)))
    assert before[at("probe_failures_total", reason="status")] == 0  # a reader keeps the moment it began with


async def test_kept_lines_are_those_that_would_be_written_anew() -> None:
    world = full_world()
    made = Snapshots(world, Counters())
    for reason in (None, Reason.STATUS, Reason.STATUS, Reason.STATUS, Reason.TIMEOUT, None, None):
        world.record("shop", "http", run(reason, readings=(Reading(PROCESSED, 1),)))
        kept = values_in("".join(made.pieces(await made.take(), openmetrics=False)))
        anew = await values_of(world)
        own = {name for name in kept if not name.startswith("soulfra_")}
        assert {n: v for n, v in kept.items() if n not in own} == {
            n: v for n, v in anew.items() if n not in own
        }


async def test_removed_targets_and_probes_vanish_with_the_next_scrape() -> None:
    world = full_world()
    made = Snapshots(world, Counters())
    assert 'target="ledger"' in "".join(made.pieces(await made.take(), openmetrics=False))

    world.watch({"shop": world.services["shop"]}, {})
    text = "".join(made.pieces(await made.take(), openmetrics=False))

    assert 'target="ledger"' not in text
    assert "dependency_success{" not in text
    assert 'target="shop"' in text


async def test_a_target_that_came_back_under_its_name_begins_anew() -> None:
    world = full_world()
    made = Snapshots(world, Counters())
    await made.take()

    world.watch({"shop": service()}, {})
    values = values_in("".join(made.pieces(await made.take(), openmetrics=False)))

    assert values[at("probe_attempts_total")] == 0
    assert at("probe_tls_not_after_timestamp_seconds") not in values


def many(count: int) -> WorldState:
    services = [service(f"s{number}") for number in range(count)]
    for one in services:
        one.record("http", run(phases=PHASES, http=HTTP))
    return world_of(*services)


async def test_others_have_their_turn_while_a_snapshot_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "HOLD", 0.0)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await Snapshots(many(100), Counters()).take()
    task.cancel()

    assert turns >= 100


async def test_a_plain_http_probe_costs_few_lines() -> None:
    one, two = await values_of(many(1)), await values_of(many(2))

    assert len(two) - len(one) <= 52  # 59 before; each costs Prometheus a microsecond or two


# The handler


@pytest.fixture
async def open_client() -> AsyncIterator[Callable[[WorldState], Any]]:
    clients: list[Client] = []

    async def begin(world: WorldState) -> Client:
        app = web.Application()
        app.router.add_get("/metrics", Scrapes(world, Counters()).answer)
        client: Client = TestClient(TestServer(app), auto_decompress=False)
        await client.start_server()
        clients.append(client)
        return client

    yield begin
    for client in clients:
        await client.close()


async def body_of(client: Client, **headers: str) -> tuple[Mapping[str, str], bytes]:
    async with client.get("/metrics", headers=headers) as answer:
        assert answer.status == 200
        return answer.headers, await answer.read()


GZIP = {"Accept-Encoding": "gzip"}


async def test_on_the_way_to_this_machine_nothing_is_compressed(open_client: Any) -> None:
    headers, body = await body_of(await open_client(many(2)), **GZIP)

    assert "Content-Encoding" not in headers
    assert b"soulfra_probe_success" in body


async def test_another_machine_that_takes_gzip_gets_it(
    open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "is_loopback", lambda _: False)
    client = await open_client(many(300))

    headers, body = await body_of(client, **GZIP)
    plain_headers, plain = await body_of(client, **{"Accept-Encoding": "identity"})

    assert headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain_headers
    assert len(body) < len(plain) / 5
    lines = gzip.decompress(body).count(b"\nsoulfra_")
    assert lines == plain.count(b"\nsoulfra_") > 10_000


async def test_two_scrapes_at_once_are_both_whole(open_client: Any) -> None:
    client = await open_client(many(300))

    answers = await asyncio.gather(*(body_of(client) for _ in range(4)))

    assert {body.count(b"\nsoulfra_probe_success{") for _, body in answers} == {300}


async def test_more_scrapes_than_can_be_served_are_told_to_come_again(
    open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "AT_ONCE", 0)
    client = await open_client(many(1))

    async with client.get("/metrics") as answer:
        assert answer.status == 503


async def test_a_scraper_that_does_not_read_is_given_up(
    open_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "LIMIT", 0.2)
    given_up = asyncio.Event()
    answer = Scrapes.answer

    async def watched(scrapes: Scrapes, request: web.Request) -> web.StreamResponse:
        response = await answer(scrapes, request)
        assert request.transport is None or request.transport.is_closing()
        given_up.set()
        return response

    monkeypatch.setattr(Scrapes, "answer", watched)
    client = await open_client(many(3000))  # more than the buffers of the sockets take
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, ("127.0.0.1", client.port))
        await loop.sock_sendall(deaf, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(given_up.wait(), 10)
    monkeypatch.setattr(streaming, "LIMIT", 30.0)
    monkeypatch.setattr(Scrapes, "answer", answer)
    client = await open_client(many(3000))
    _, body = await body_of(client)
    assert body.count(b"\nsoulfra_probe_success{") == 3000


async def test_a_head_request_gets_no_body(open_client: Any) -> None:
    client = await open_client(many(2))

    async with client.head("/metrics") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    _, body = await body_of(client)  # on the same connection
    assert body.count(b"\nsoulfra_probe_success{") == 2


@pytest.mark.parametrize("only", [None, "s1", "shop"])
def test_state_in_pieces_is_the_state(monkeypatch: pytest.MonkeyPatch, only: str | None) -> None:
    monkeypatch.setattr(answers, "time", lambda: 1.0)
    world = many(3)

    pieces = list(answers.state_pieces(world, only))

    assert json.loads("".join(pieces)) == answers.state_of(world, only)
    assert len(pieces) >= 3
