"""Puts the remediator together: one process with many threads, which ``remediator.serving`` runs."""

import fcntl
import ipaddress
import logging
import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import TextIO

from flask import Flask

from exporter.document import ConfigError, Mistake
from remediator.actions import spawn
from remediator.chores import Chores
from remediator.config import Loaded, load, read_token
from remediator.engine import Engine
from remediator.escalation import recall_calls
from remediator.feed import print_line
from remediator.heartbeats import HeartbeatCollector
from remediator.metrics import Metrics
from remediator.notify import Notifier
from remediator.runner import Tools
from remediator.running import Identity
from remediator.store import open_store
from remediator.telemetry import Telemetry
from remediator.verify import ExporterClient
from remediator.watchdog import Watchdog
from remediator.web import Surroundings, create_app
from remediator.web.access import Holder

log = logging.getLogger(__name__)

_LOCK_WAIT = 10.0  # seconds an earlier life gets to end


class StartError(Exception):
    """The remediator cannot start; the message says why and how to mend it."""


def serve(loaded: Loaded, data: Path, listen: str | None = None) -> None:
    """Run until SIGTERM or SIGINT. Raises StartError, or ConfigError, before anything is served."""
    address = listen or loaded.config.remediator.listen
    holders = read_tokens(loaded)
    _refuse_open_door(address, holders)
    _refuse_busy_port(address)
    data.mkdir(parents=True, exist_ok=True)
    # A fresh program, because what malloc takes from the environment it takes at the start: two arenas
    # instead of eight per core, for the threads here are many and mostly wait.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    threads = str(loaded.config.remediator.threads)
    command = [sys.executable, "-m", "remediator.serving", str(loaded.file), str(data), address, threads]
    os.execv(sys.executable, command)  # noqa: S606 - our own interpreter and module


def begin(file: Path, data: Path) -> tuple[Flask, Engine]:
    """Build and start everything. Raises StartError, ConfigError or StoreError."""
    loaded = load(file)
    logging.basicConfig(
        level=loaded.config.remediator.log_level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    _hold(data / "remediator.lock")
    surroundings, chores = build(loaded, data, read_tokens(loaded))
    surroundings.engine.start()
    chores.start()
    return create_app(surroundings), surroundings.engine


def build(loaded: Loaded, data: Path, holders: dict[str, Holder]) -> tuple[Surroundings, Chores]:
    """Open the store and wire everything; nothing is started. Raises StoreError."""
    config = loaded.config
    section = config.remediator
    metrics = Metrics((playbook.name for playbook in loaded.playbooks), config.services)
    tools = Tools(
        store=open_store(str(data / "soulfra.db")),
        exporter=ExporterClient(config.exporter_url),
        notifier=Notifier(section.channels, config.alertmanager_urls, os.environ),
        metrics=metrics,
        feed=print_line,
        services=config.services,
        settings=config.settings,
        config_folder=loaded.file.resolve().parent,
        data_folder=data.resolve(),
        evidence_timeout=section.evidence_timeout,
        watchdog=Watchdog(section.watchdog, time.time()),
        withheld=spawn.secret_variables(section),
    )
    recall_calls(tools, tools.clock())
    engine = Engine(
        tools,
        loaded.playbooks,
        Identity(owner=section.name or socket.gethostname(), boot=secrets.token_hex(4)),
        alertmanagers=config.alertmanager_urls,
        stable_for=section.stable_for,
        escalate_after=section.escalate_after,
        lease=section.lease,
    )
    chores = Chores(
        tools,
        engine,
        alertmanagers=config.alertmanager_urls,
        reconcile=section.reconcile,
        retention=section.retention,
        summary_retention=section.summary_retention,
        quiet=section.events.quiet,
        enabled=section.enabled,
    )
    periods = {name: (beat.period, beat.grace) for name, beat in config.heartbeats.items()}
    tools.store.expect_heartbeats(periods, tools.clock())
    HeartbeatCollector(metrics.registry, list(periods), tools.store.heartbeats)
    telemetry = Telemetry(metrics.registry, config.services)
    around = Surroundings(loaded=loaded, engine=engine, tools=tools, telemetry=telemetry, secrets=holders)
    return around, chores


def read_tokens(loaded: Loaded) -> dict[str, Holder]:
    """Read every configured token. Raises ConfigError naming each that cannot be used."""
    holders: dict[str, Holder] = {}
    mistakes = []
    for index, token in enumerate(loaded.config.remediator.tokens):
        place = f"remediator.tokens[{index}]"
        try:
            secret = read_token(token)
        except ValueError as error:
            mistakes.append(Mistake(file=str(loaded.file), line=None, place=place, message=str(error)))
            continue
        if secret in holders:
            message = f"token {token.name} is the same secret as token {holders[secret].name}"
            mistakes.append(Mistake(file=str(loaded.file), line=None, place=place, message=message))
        holders[secret] = Holder(name=token.name, role=token.role)
    if mistakes:
        raise ConfigError(mistakes)
    return holders


def _refuse_open_door(address: str, holders: dict[str, Holder]) -> None:
    host = address.rpartition(":")[0].strip("[]")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not holders:
        raise StartError(
            f"remediator.listen: {address} is reachable from other machines and there are no tokens; "
            "configure remediator.tokens or listen on 127.0.0.1"
        )


def _refuse_busy_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        deadline = time.monotonic() + _LOCK_WAIT
        while True:
            try:
                probe.bind((host.strip("[]"), int(port)))
            except OSError as error:
                # An earlier life that is ending needs a moment.
                if time.monotonic() > deadline:
                    raise StartError(f"cannot listen on {address}: {error.strerror}") from error
                time.sleep(0.1)
            else:
                return


def _hold(path: Path) -> None:
    """Make sure that one remediator works in a data folder; waits for an earlier life to end.

    The lock is held until the process ends.
    """
    handle = path.open("w", encoding="utf-8")
    _HELD.append(handle)
    deadline = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() > deadline:
                raise StartError(f"another remediator works in {path.parent}") from error
            time.sleep(0.1)
        else:
            return


_HELD: list[TextIO] = []  # an open file keeps its lock
