"""The course of ``soulfra up``: check, start, keep running, end."""

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from remediator.actions import ActionError
from remediator.actions.spawn import program, secret_variables, start_service
from remediator.config import Loaded
from remediator.feed import flush, print_line, print_raw
from remediator.places import expand
from remediator.stack import family
from remediator.stack.plan import Demo, Part, StackPlan, listening_addresses, plan_stack, start_mistakes
from remediator.stack.ports import listens
from remediator.stack.render import render
from remediator.stack.shipped import shipped_rules
from remediator.stack.supervisor import Supervisor
from remediator.stack.waiting import Waiting

_START_TIME = 60.0  # seconds after which people are told that a part is still not ready
_SERVICES_TIME = 15.0  # seconds the services have to listen before the first look at them


class StackError(Exception):
    """The stack cannot be started; every reason on its own line."""


def up(loaded: Loaded, data: Path, *, demo: bool) -> None:
    """Run the stack until it is asked to end; afterwards no process of it is left.

    Raises StackError, before anything is started, with every reason why it cannot be.
    """
    if sys.platform != "linux":
        raise StackError(
            "soulfra up needs Linux: only there can it find restarted services again and end them"
        )
    plan = plan_stack(loaded, data.resolve(), demo=demo)
    if mistakes := start_mistakes(plan):
        raise StackError("\n".join(mistakes))
    with _data_folder(plan.data), Waiting() as waiting:
        _write_configuration(plan)
        family.adopt_orphans()
        _lead_libraries_here(plan)
        supervisor = Supervisor(waiting=waiting, logs=plan.data / "logs", feed=print_raw)
        try:
            _start(plan, supervisor, waiting)
            while not waiting.end_asked:
                supervisor.tick(3600)
        finally:
            waiting.end_asked = True
            _end(plan, supervisor)


@contextmanager
def _data_folder(data: Path) -> Iterator[None]:
    """Hold the data folder for this stack alone."""
    try:
        (data / "logs").mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("a+", encoding="ascii")
    except OSError as error:
        raise StackError(f"{data}: cannot be used as data folder: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise StackError(
                f"{data}: is in use by another soulfra up, process {lock.read().strip()}"
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _write_configuration(plan: StackPlan) -> None:
    try:
        render(plan.loaded.config, shipped_rules(), plan.data)
    except (OSError, ValueError) as error:
        raise StackError(str(error)) from error


def _lead_libraries_here(plan: StackPlan) -> None:
    """Let services that use the library report to this stack, also those that the remediator restarts."""
    os.environ.setdefault("SOULFRA_URL", plan.remediator.url)
    os.environ.setdefault("SOULFRA_SPOOL", str(plan.data / "spool"))


def _start(plan: StackPlan, supervisor: Supervisor, waiting: Waiting) -> None:
    for part in plan.parts:
        if part is not plan.exporter:
            _keep(supervisor, part)
    if plan.demo is not None:
        _start_services(plan, plan.demo, supervisor)
    # Last, because what is still starting would be a failure to it.
    _keep(supervisor, plan.exporter)
    deadline = time.monotonic() + _START_TIME
    late = [part for part in plan.parts if not supervisor.until(partial(supervisor.is_ready, part), deadline)]
    if waiting.end_asked:
        return
    if plan.demo is not None and plan.demo.load:
        _start_load(plan, plan.demo, supervisor)
    for part in plan.parts:
        state = f"not ready yet; see {plan.data / 'logs' / part.name}.log" if part in late else part.url
        print_line("stack", f"{part.name}: {state}")
    seconds = time.time() - psutil.Process().create_time()
    print_line("stack", f"{'started' if late else 'ready'} in {seconds:.1f} s; Ctrl-C ends everything")


def _start_services(plan: StackPlan, demo: Demo, supervisor: Supervisor) -> None:
    """Start each service once, as the remediator would, and give them time to listen."""
    withheld = secret_variables(plan.loaded.config.remediator)
    for name, service in demo.services:
        try:
            process = start_service(
                name, service, config_folder=plan.folder, data_folder=plan.data, withheld=withheld
            )
        except ActionError as error:
            print_line("stack", str(error))
        else:
            supervisor.watch(process)
    addresses = [address for _, service in demo.services for address in listening_addresses(service)]
    supervisor.until(lambda: all(map(listens, addresses)), time.monotonic() + _SERVICES_TIME)


def _start_load(plan: StackPlan, demo: Demo, supervisor: Supervisor) -> None:
    argv = program([expand(word, plan.data) for word in demo.load])
    try:
        supervisor.run_once("load", argv, plan.folder)
    except OSError as error:
        print_line("stack", f"demo.load: {argv[0]!r} cannot be started: {error.strerror}")


def _keep(supervisor: Supervisor, part: Part) -> None:
    try:
        supervisor.keep(part)
    except OSError as error:
        raise StackError(f"{part.name}: cannot be started: {error.strerror}") from error


def _end(plan: StackPlan, supervisor: Supervisor) -> None:
    # The remediator before what it would repair, those who watch last; 15 s at most.
    monitors = supervisor.pids(*plan.monitors)
    supervisor.end(supervisor.once, grace=1)
    supervisor.end(supervisor.pids(plan.remediator), grace=4)
    supervisor.end(supervisor.pids(plan.exporter), grace=2)
    supervisor.end_all_but(monitors, grace=3)
    supervisor.end_all_but([], grace=3)
    left = ", ".join(f"{process.pid} ({process.name()})" for process in family.descendants())
    print_line("stack", f"these processes cannot be ended: {left}" if left else "ended; no process is left")
    flush()
