"""What a stack consists of, and what is wrong with that before anything is started."""

import shutil
import sys
from dataclasses import dataclass
from graphlib import TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

from exporter.config import Service
from exporter.kinds import ProbeBase
from remediator.actions.spawn import program
from remediator.config import Loaded, StackConfig
from remediator.places import place
from remediator.stack.ports import Need, port_mistakes, reachable
from soulfra_monitor.durations import format_duration

_ALERTMANAGERS = ("prometheus-alertmanager", "alertmanager")  # Debian's name, everybody else's name
_INSTALL = "; install it (Debian, Ubuntu: apt-get install redis-server)"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A process of our own that is kept running."""

    name: str
    argv: tuple[str, ...]
    address: str
    ready: str  # path that answers 200 when it can work
    setting: str  # where its address is configured
    feed: bool = False  # its standard output is for people

    @property
    def url(self) -> str:
        """Where a local client finds it."""
        return f"http://{reachable(self.address)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """The example platform: started once, healed by the remediator alone."""

    services: tuple[tuple[str, Service], ...] = ()  # in the order of their dependencies
    load: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StackPlan:
    """All that ``soulfra up`` starts."""

    loaded: Loaded
    data: Path
    monitors: tuple[Part, ...]  # Prometheus and Alertmanager
    exporter: Part
    remediator: Part
    demo: Demo | None

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return what is kept running."""
        return (self.exporter, self.remediator, *self.monitors)

    @property
    def folder(self) -> Path:
        """Where relative paths of the configuration start."""
        return self.loaded.file.resolve().parent


def plan_stack(loaded: Loaded, data: Path, *, demo: bool) -> StackPlan:
    """Decide what is started, and how. Looks at nothing but the configuration."""
    config = loaded.config
    return StackPlan(
        loaded=loaded,
        data=data,
        monitors=(_prometheus(config, data), _alertmanager(config, data)),
        exporter=_exporter(loaded),
        remediator=_remediator(loaded, data),
        demo=Demo(services=tuple(_in_order(config)), load=config.demo.load) if demo else None,
    )


def _prometheus(config: StackConfig, data: Path) -> Part:
    section = config.prometheus
    argv = (
        section.command,
        f"--config.file={data / 'prometheus' / 'prometheus.yml'}",
        f"--storage.tsdb.path={data / 'prometheus' / 'storage'}",
        f"--storage.tsdb.retention.time={format_duration(section.retention)}",
        f"--web.listen-address={section.listen}",
    )
    return Part(
        name="prometheus", argv=argv, address=section.listen, ready="/-/ready", setting="prometheus.listen"
    )


def _alertmanager(config: StackConfig, data: Path) -> Part:
    section = config.alertmanager
    argv = (
        section.command or next(filter(shutil.which, _ALERTMANAGERS), _ALERTMANAGERS[0]),
        f"--config.file={data / 'alertmanager' / 'alertmanager.yml'}",
        f"--storage.path={data / 'alertmanager' / 'storage'}",
        f"--web.listen-address={section.listen}",
        "--cluster.listen-address=",  # alone: no gossip port
    )
    return Part(
        name="alertmanager",
        argv=argv,
        address=section.listen,
        ready="/-/ready",
        setting="alertmanager.listen",
    )


def _exporter(loaded: Loaded) -> Part:
    return Part(
        name="exporter",
        argv=(sys.executable, "-m", "remediator.cli", "exporter", "--config", str(loaded.file.resolve())),
        address=loaded.config.exporter.listen,
        ready="/-/ready",
        setting="exporter.listen",
    )


def _remediator(loaded: Loaded, data: Path) -> Part:
    config = str(loaded.file.resolve())
    return Part(
        name="remediator",
        argv=(sys.executable, "-m", "remediator.cli", "remediator", "--config", config, "--data", str(data)),
        address=loaded.config.remediator.listen,
        ready="/readyz",
        setting="remediator.listen",
        feed=True,
    )


def _in_order(config: StackConfig) -> list[tuple[str, Service]]:
    needs = {name: service.depends_on for name, service in config.services.items()}
    order = TopologicalSorter(needs).static_order()
    return [(name, config.services[name]) for name in order if config.services[name].restart is not None]


def start_mistakes(plan: StackPlan) -> list[str]:
    """Say everything that would keep the stack from starting: programs that are missing, ports in use."""
    return [*_missing_programs(plan), *_missing_packages(plan), *port_mistakes(_needs(plan))]


def _missing_programs(plan: StackPlan) -> list[str]:
    known = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}
    found = [
        f"{part.name}.command: there is no program {part.argv[0]!r}; "
        f"install it (Debian, Ubuntu: apt-get install {known[part.name]}) or say where it is"
        for part in plan.monitors
        if shutil.which(part.argv[0]) is None
    ]
    for name, service in plan.demo.services if plan.demo else ():
        command = _program_of(service, plan)
        if shutil.which(command) is None:
            hint = _INSTALL if command == "redis-server" else ""
            found.append(f"services.{name}.restart.command: there is no program {command!r}{hint}")
    return found


def _missing_packages(plan: StackPlan) -> list[str]:
    """Say what the example platform would miss only when it is asked for a document."""
    scripts = {
        Path(word).name
        for _, service in (plan.demo.services if plan.demo else ())
        for word in (service.restart.command if service.restart else ())
    }
    if "mobile_converter.py" not in scripts:
        return []
    missing = [name for name in ("ebooklib", "markdown", "fpdf") if find_spec(name) is None]
    return (
        [f"the example platform needs {', '.join(missing)}: pip install 'soulfra-monitor[platform]'"]
        if missing
        else []
    )


def _program_of(service: Service, plan: StackPlan) -> str:
    command = program(service.restart.command)[0] if service.restart else ""
    if "/" not in command:
        return command
    folder = place(service.restart.cwd or "." if service.restart else ".", plan.folder, plan.data)
    return str(folder / command)


def _needs(plan: StackPlan) -> list[Need]:
    needs = [Need(name=part.name, address=part.address, setting=part.setting) for part in plan.parts]
    taken: set[str] = set()
    for name, service in plan.demo.services if plan.demo else ():
        for address in listening_addresses(service):
            if address not in taken:
                taken.add(address)
                needs.append(Need(name=name, address=address, setting=f"services.{name}"))
    return needs


def listening_addresses(service: Service) -> tuple[str, ...]:
    """Return where on this machine the service is going to listen, as far as its checks tell."""
    ports = [service.process.port] if service.process and service.process.port else []
    for probe in service.probes:
        port = _local_port(probe)
        if port is not None and port not in ports:
            ports.append(port)
    return tuple(f"127.0.0.1:{port}" for port in ports)


def _local_port(probe: ProbeBase) -> int | None:
    host, port = probe.address() or ("", None)
    return port if host in _LOOPBACK else None
