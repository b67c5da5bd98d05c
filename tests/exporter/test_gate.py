"""The allow-list of places: what an entry opens, and what nothing opens by accident."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gate import ANYWHERE_ELSE, GUARDED, OPEN, Entry, ForbiddenAddressError, gate_of, judged


def opens(entries: tuple[str, ...], host: str, address: str, port: int = 80) -> bool:
    try:
        gate_of(entries).check(host, address, port)
    except ForbiddenAddressError:
        return False
    return True


EVERYTHING = ("0.0.0.0/0", "::/0", "*")


@pytest.mark.parametrize(
    ("entry", "address", "port"),
    [
        ("10.0.0.0/8", "10.1.2.3", 80),
        ("10.1.2.3", "10.1.2.3", 80),
        ("10.1.2.3/8", "10.200.0.1", 80),  # a network may be written by one of its addresses
        ("127.0.0.1:8000-9000", "127.0.0.1", 8500),
        ("127.0.0.0/8", "127.0.0.53", 53),
        ("::1", "::1", 443),
        ("[::1]:80", "::1", 80),
        ("2001:db8::/32", "2001:db8::7", 1),
        ("[2001:db8::/32]:443", "2001:db8::7", 443),
        ("169.254.169.254", "169.254.169.254", 80),  # said explicitly
        ("fe80::/10", "fe80::1%eth0", 80),
        ("10.0.0.0/8", "::ffff:10.1.2.3", 80),
        ("0.0.0.0/0", "192.168.1.1", 80),
    ],
)
def test_an_entry_for_addresses_opens_them_whatever_the_name(entry: str, address: str, port: int) -> None:
    assert opens((entry,), "any.example", address, port)


@pytest.mark.parametrize(
    ("entry", "address", "port"),
    [
        ("10.0.0.0/8", "11.0.0.1", 80),
        ("127.0.0.1:8000-9000", "127.0.0.1", 9001),
        ("127.0.0.1:80", "127.0.0.2", 80),
        ("[::1]:80", "::1", 81),
        ("2001:db8::/32", "10.0.0.1", 80),
        ("10.0.0.0/8", "::ffff:127.0.0.1", 80),
    ],
)
def test_an_entry_for_addresses_opens_no_others(entry: str, address: str, port: int) -> None:
    assert not opens((entry,), "any.example", address, port)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "0.1.2.3",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fd20:ce::254",
        "ff02::1",
        "::ffff:169.254.169.254",
        "::ffff:127.0.0.1",
        "::7f00:1",  # IPv4-compatible
        "64:ff9b::a9fe:a9fe",  # NAT64 of 169.254.169.254
        "64:ff9b::7f00:1",
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "64:ff9b:1::7f00:1",  # NAT64 of one's own
        "64:ff9b:1:7f00:0:100::",  # the same with the address further up
        "::ffff:0:7f00:1",  # SIIT
    ],
)
def test_metadata_loopback_and_link_local_need_an_entry_of_their_own(address: str) -> None:
    assert not opens(EVERYTHING, "shop.example", address)


def test_a_name_opens_public_addresses_only() -> None:
    names = ("*.shop.example",)

    assert opens(names, "api.shop.example", "93.184.216.34")
    assert opens(names, "API.Shop.Example.", "93.184.216.34")
    assert not opens(names, "api.shop.example", "10.0.0.1")  # as after DNS rebinding
    assert not opens(names, "api.shop.example", "169.254.169.254")
    assert not opens(names, "api.shop.example", "fd00::1")
    assert not opens(names, "shop.example.evil.example", "93.184.216.34")
    assert not opens(names, "shop.example", "93.184.216.34")
    assert opens((*names, "10.0.0.0/8"), "api.shop.example", "10.0.0.1")


@pytest.mark.parametrize(
    "address", ["fec0::1", "4000::1", "1000::1", "fc00::1", "2001:db8::1", "64:ff9b:1::5db8:d822", "100::1"]
)
def test_public_ipv6_is_what_is_handed_out_for_the_internet(address: str) -> None:
    name, ip = ("shop.example",), judged(address)

    assert opens(name, "shop.example", address) is (str(ip) == "93.184.216.34")
    assert opens(name, "shop.example", "2606:2800:220:1::1")


@pytest.mark.parametrize("address", ["64:ff9b::5db8:d822", "64:ff9b:1::5db8:d822", "::ffff:0:5db8:d822"])
def test_a_public_address_behind_a_translator_is_the_public_address(address: str) -> None:
    assert str(judged(address)) == "93.184.216.34"


@pytest.mark.parametrize(
    ("home", "address", "allowed"),
    [
        ("93.184.216.34", "93.184.216.35", True),
        ("93.184.216.34", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", True),
        ("93.184.216.34", "127.0.0.1", False),
        ("10.0.0.1", "::1", False),
        ("10.0.0.1", "::ffff:127.0.0.1", False),
        ("10.0.0.1", "169.254.169.254", False),
        ("10.0.0.1", "224.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "::1", True),
        ("127.0.0.1", "169.254.169.254", False),
        ("169.254.169.254", "169.254.169.254", True),
        ("", "127.0.0.1", False),  # behind a proxy nobody knows who redirects
    ],
)
def test_a_redirect_of_a_configured_target_stays_out_of_guarded_zones_that_are_not_its_own(
    home: str, address: str, allowed: bool
) -> None:
    gate = OPEN.after_redirect(home)

    if allowed:
        gate.check("next.example", address, 80)
        return
    with pytest.raises(
        ForbiddenAddressError, match=r"a redirect leads to next\.example, port 80, an address"
    ):
        gate.check("next.example", address, 80)


def test_an_allow_list_decides_about_redirects_too() -> None:
    gate = gate_of(("127.0.0.1:8080",)).after_redirect("93.184.216.34")

    gate.check("next.example", "127.0.0.1", 8080)
    with pytest.raises(ForbiddenAddressError, match=r"is not in exporter\.allow_targets"):
        gate.check("next.example", "127.0.0.1", 8081)


@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1", "93.184.216.34", "2606:2800:220:1::1", "fec0::1"])
def test_anywhere_else_opens_what_is_not_guarded(address: str) -> None:
    assert opens(ANYWHERE_ELSE, "agent.example", address)
    assert gate_of(ANYWHERE_ELSE).knows_name("agent.example", 80)


def test_the_port_of_a_name_counts() -> None:
    assert opens(("*:443",), "shop.example", "93.184.216.34", 443)
    assert not opens(("*:443",), "shop.example", "93.184.216.34", 80)


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "134744072", "0x8.0x8.0x8.0x8", "010.8.8.8", "8.8.2056", "2001:db8::1"]
)
def test_an_address_is_no_name_however_it_is_written(host: str) -> None:
    assert not gate_of(("*",)).knows_name(host, 80)


def test_an_empty_list_opens_nothing_and_no_list_everything() -> None:
    assert not opens((), "shop.example", "93.184.216.34")
    OPEN.check("any.example", "169.254.169.254", 80)
    OPEN.admit("169.254.169.254", 80)


def test_who_can_never_come_in_is_refused_before_anything_is_resolved() -> None:
    with pytest.raises(
        ForbiddenAddressError, match=r"api\.example, port 80, is not in exporter\.allow_targets"
    ):
        gate_of(("*.shop.example",)).admit("api.example", 80)
    with pytest.raises(ForbiddenAddressError):
        gate_of(("10.0.0.0/8",)).admit("127.0.0.1", 80)
    gate_of(("10.0.0.0/8",)).admit("api.example", 80)  # its address may be one of those


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a b", "cannot be allowed; write an address"),
        ("1.2.3", "cannot be allowed; write an address"),
        ("2130706433", "cannot be allowed; write an address"),
        ("10.0.0.0/33", "cannot be allowed; write an address"),
        ("http://shop.example/", "cannot be allowed; write an address"),
        ("shop.example:http", "cannot be allowed; write an address"),
        ("shop.example:0", "ports are 1 to 65535, the smaller one first"),
        ("shop.example:90-80", "ports are 1 to 65535, the smaller one first"),
        ("2001:db8::/32:443", r"a network \(10\.0\.0\.0/8 or \[2001:db8::/32\]\)"),
        ("[shop.example", "cannot be allowed; write an address"),
        ("", "cannot be allowed; write an address"),
    ],
)
def test_an_entry_that_cannot_be_read_says_how_to_write_it(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Entry.parse(text)


@given(st.ip_addresses())
def test_no_wide_entry_opens_a_guarded_address(address: object) -> None:
    guarded = any(judged(str(address)) in network for network in GUARDED)

    assert opens(("0.0.0.0/0", "::/0"), "shop.example", str(address)) is not guarded


@given(st.text(max_size=40))
def test_any_text_is_an_entry_or_told_why_not(text: str) -> None:
    try:
        Entry.parse(text)
    except ValueError:
        return
    gate_of([text]).knows_name("shop.example", 80)


@given(st.text(max_size=40), st.integers(1, 65535))
def test_any_host_is_admitted_or_refused(host: str, port: int) -> None:
    try:
        gate_of(["*.shop.example", "10.0.0.0/8"]).admit(host, port)
    except ForbiddenAddressError:
        return
