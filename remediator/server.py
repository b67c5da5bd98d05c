"""Puts the remediator together and serves it: gunicorn, one worker, many threads.

One worker, because custom collectors and the in-process locks do not survive several; the engine's
threads start in the worker, after the fork.
"""

import fcntl
import ipaddress
import logging
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TextIO

from gunicorn.app.base import BaseApplication

from exporter.document import ConfigError, Mistake
from remediator.chores import Chores
from remediator.config import Loaded, read_token
from remediator.engine import Engine
from remediator.feed import print_line
from remediator.metrics import Metrics
from remediator.notify import Notifier
from remediator.runner import Tools
from remediator.running import Identity
from remediator.store import StoreError, open_store
from remediator.verify import ExporterClient
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
    logging.basicConfig(
        level=loaded.config.remediator.log_level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    _Server(loaded, data, address, holders).run()


def build(loaded: Loaded, data: Path, holders: dict[str, Holder]) -> tuple[Surroundings, Chores]:
    """Open the store and wire everything; nothing is started. Raises StoreError."""
    config = loaded.config
    section = config.remediator
    metrics = Metrics(playbook.name for playbook in loaded.playbooks)
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
    )
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
    )
    return Surroundings(loaded=loaded, engine=engine, tools=tools, secrets=holders), chores


def read_tokens(loaded: Loaded) -> dict[str, Holder]:
    """Read every configured token. Raises ConfigError naming each that cannot be used."""
    holders: dict[str, Holder] = {}
    mistakes = []
    for index, token in enumerate(loaded.config.remediator.tokens):
        try:
            holders[read_token(token)] = Holder(name=token.name, role=token.role)
        except ValueError as error:
            place = f"remediator.tokens[{index}]"
            mistakes.append(Mistake(file=str(loaded.file), line=None, place=place, message=str(error)))
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
                # The worker of a killed remediator needs a moment to see that its parent is gone.
                if time.monotonic() > deadline:
                    raise StartError(f"cannot listen on {address}: {error.strerror}") from error
                time.sleep(0.1)
            else:
                return


class _Server(BaseApplication):  # type: ignore[misc] # gunicorn has no types
    """Gunicorn, configured from our own configuration alone."""

    def __init__(self, loaded: Loaded, data: Path, address: str, holders: dict[str, Holder]) -> None:
        self._loaded = loaded
        self._data = data
        self._address = address
        self._holders = holders
        self._surroundings: Surroundings | None = None
        self._lock: TextIO | None = None
        super().__init__()

    def load_config(self) -> None:
        """Set what gunicorn needs; it reads no file and no environment of its own."""
        settings: dict[str, Any] = {
            "bind": self._address,
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._loaded.config.remediator.threads,
            "timeout": 60,
            "graceful_timeout": 5,
            "keepalive": 30,
            "preload_app": False,
            "loglevel": "warning",
            "worker_exit": lambda _server, _worker: self._stop(),
            "proc_name": "soulfra-remediator",
            "control_socket_disable": True,
        }
        for key, value in settings.items():
            if key in self.cfg.settings:
                self.cfg.set(key, value)

    def load(self) -> Callable[..., Iterable[bytes]]:
        """Build and start everything inside the worker."""
        self._lock = _hold(self._data / "remediator.lock")
        try:
            self._surroundings, chores = build(self._loaded, self._data, self._holders)
        except StoreError as error:
            log.critical("the store cannot be opened: %s", error)
            raise
        self._surroundings.engine.start()
        chores.start()
        return create_app(self._surroundings)

    def _stop(self) -> None:
        if self._surroundings is not None:
            self._surroundings.engine.stop()


def _hold(path: Path) -> TextIO:
    """Make sure that one remediator works in a data folder; waits for an earlier life to end."""
    handle = path.open("w", encoding="utf-8")
    deadline = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() > deadline:
                handle.close()
                raise StartError(f"another remediator works in {path.parent}") from error
            time.sleep(0.1)
        else:
            return handle
