"""Services that are real processes of small Python programs, and what an action gets to know of them."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from exporter.config import Restart, Service
from remediator.actions import ActionContext
from remediator.actions.spawn import CHILDREN, start_service
from remediator.notify import Notifier

READY = "print('ready', flush=True)"
SLEEP = f"import time; {READY}; time.sleep(60)"


class Bench:
    """A data folder with services in it; everything started on it is ended with it."""

    def __init__(self, folder: Path, until: Callable[..., None]) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.until = until
        self.services: dict[str, Service] = {}

    def service(self, name: str, code: str, **restart: Any) -> Service:
        """Configure a service that runs Python code."""
        command = restart.pop("command", ("{python}", "-c", code))
        found = Service(restart=Restart.model_validate({"command": command, **restart}))
        self.services[name] = found
        return found

    def start(self, name: str) -> psutil.Process:
        """Start a configured service and wait until it says that it is ready."""
        before = self.log(name).count("ready")
        process = start_service(name, self.services[name], config_folder=self.folder, data_folder=self.data)
        self.until(lambda: self.log(name).count("ready") > before)
        return psutil.Process(process.pid)

    def log(self, name: str) -> str:
        path = self.data / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def context(self, processes: Mapping[str, Mapping[str, Any]] | None = None, **more: Any) -> ActionContext:
        return ActionContext(
            run_id="R_000000000001",
            target="shop",
            services=self.services,
            config_folder=self.folder,
            data_folder=self.data,
            processes=processes or {},
            notifier=more.pop("notifier", Notifier({}, [], {})),
            summary={"run": "R_000000000001", "error": "SE_00000001", "target": "shop", "playbook": "test"},
            **more,
        )

    def close(self) -> None:
        while CHILDREN._started:
            for _, process in list(CHILDREN._started):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
            CHILDREN.reap()


def seen(process: psutil.Process, **more: Any) -> dict[str, Any]:
    """Return what the exporter says of a process."""
    return {"pid": process.pid, "start_time": process.create_time(), "status": "running", **more}


@pytest.fixture
def bench(tmp_path: Path, until: Callable[..., None]) -> Iterator[Bench]:
    found = Bench(tmp_path, until)
    yield found
    found.close()


@pytest.fixture
def python() -> str:
    return sys.executable
