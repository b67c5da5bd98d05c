"""Addresses that must be free before anything is started, and who holds those that are not."""

import errno
import socket
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """An address somebody is going to listen on, and where in the configuration it is set."""

    name: str
    address: str
    setting: str


def port_mistakes(needs: list[Need]) -> list[str]:
    """Say of each address that cannot be listened on why not, and who holds it."""
    found = []
    wanted: dict[str, Need] = {}
    for need in needs:
        first = wanted.setdefault(need.address, need)
        if first is not need:
            found.append(
                f"{need.setting}: {need.name} and {first.name} both want {need.address}; "
                "give one of them another port"
            )
        elif (reason := _refusal(need.address)) is not None:
            found.append(f"{need.setting}: {need.name} cannot listen on {need.address}: {reason}")
    return found


def host_and_port(address: str) -> tuple[str, int]:
    """Split ``HOST:PORT``; an IPv6 host loses its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def reachable(address: str) -> str:
    """Return the address at which a local client finds who listens on *address*."""
    host, port = host_and_port(address)
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return f"127.0.0.1:{port}"
    return address


def listens(address: str) -> bool:
    """Whether somebody accepts connections at *address*."""
    try:
        with socket.create_connection(host_and_port(reachable(address)), timeout=1):
            return True
    except OSError:
        return False


def _refusal(address: str) -> str | None:
    host, port = host_and_port(address)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do it: connections that linger from an earlier run are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return f"the port is in use by {_holder(port)}"
        return error.strerror or str(error)
    return None


def _holder(port: int) -> str:
    pids = {
        connection.pid
        for connection in psutil.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,)
    }
    known = sorted(pid for pid in pids if pid is not None)
    if not known:
        return "a process of another user"
    return ", ".join(_describe(pid) for pid in known)


def _describe(pid: int) -> str:
    try:
        command = " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        command = "its command cannot be read"
    limit = 120
    return f"process {pid} ({command if len(command) <= limit else command[:limit] + '…'})"
