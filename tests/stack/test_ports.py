"""Addresses are checked before anything is started."""

import os
import socket
import sys
from collections.abc import Callable

from remediator.stack.ports import Need, listens, port_mistakes, reachable


def need(name: str, port: int) -> Need:
    return Need(name=name, address=f"127.0.0.1:{port}", setting=f"{name}.listen")


def test_free_addresses_are_no_mistake(ports: Callable[[], int]) -> None:
    assert port_mistakes([need("exporter", ports()), need("remediator", ports())]) == []


def test_every_busy_port_is_told_with_its_setting_and_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        taken = [one.getsockname()[1], other.getsockname()[1]]

        found = port_mistakes([need("exporter", taken[0]), need("prometheus", taken[1])])

    assert len(found) == 2
    assert found[0].startswith(f"exporter.listen: exporter cannot listen on 127.0.0.1:{taken[0]}: ")
    assert f"process {os.getpid()} (" in found[0]
    assert os.path.basename(sys.executable) in found[0]  # noqa: PTH119 - the name alone
    assert found[1].startswith("prometheus.listen: ")


def test_a_holder_on_all_addresses_is_found_too() -> None:
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        found = port_mistakes([need("exporter", everywhere.getsockname()[1])])

    assert f"process {os.getpid()} (" in found[0]


def test_two_parts_that_want_the_same_address_are_a_mistake(ports: Callable[[], int]) -> None:
    port = ports()

    found = port_mistakes([need("exporter", port), need("remediator", port)])

    told = f"remediator.listen: remediator and exporter both want 127.0.0.1:{port}; "
    assert found == [told + "give one of them another port"]


def test_an_address_that_is_not_of_this_machine_is_told() -> None:
    found = port_mistakes([Need(name="exporter", address="192.0.2.1:9877", setting="exporter.listen")])

    assert found[0].startswith("exporter.listen: exporter cannot listen on 192.0.2.1:9877: ")


def test_who_listens_everywhere_is_reached_on_loopback() -> None:
    assert reachable("0.0.0.0:3001") == "127.0.0.1:3001"
    assert reachable("[::]:3001") == "127.0.0.1:3001"
    assert reachable("127.0.0.2:3001") == "127.0.0.2:3001"


def test_listening_is_seen_from_outside(ports: Callable[[], int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listens(f"127.0.0.1:{server.getsockname()[1]}")
    assert not listens(f"127.0.0.1:{ports()}")
