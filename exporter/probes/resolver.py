"""Names to addresses: asked of the DNS servers on the event loop, kept for as long as their TTL says.

/etc/hosts and resolv.conf count as for any program. What the DNS servers do not know is asked of the
system too, which may know more: mDNS, LDAP, the machine's own name.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from exporter.counters import DnsCounts

IpVersion = Literal[4, 6]
Source = Literal["dns", "system"]
Question = tuple[str, IpVersion | None]

KEPT_AT_MOST = 60.0  # seconds; a zone with a TTL of a day must not hide a change for a day
SYSTEM_KEPT = 5.0  # the system tells no TTL
CACHE_SIZE = 10_000
TRY_FOR = 0.8  # seconds per server and attempt, so that one lost packet does not cost a probe
TRIES = 2
PATIENCE = TRY_FOR * (2**TRIES - 1)  # seconds for a question: each try has twice as long as the one before
FORGET_EVERY = 0.2
SYSTEM_THREADS = 4

_FAMILIES = {None: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}
_HOSTS = Path("/etc/hosts")
_HOSTS_LIMIT = 1024 * 1024
_LOCALHOST = ("127.0.0.1", "::1")  # what is taken when the file does not say
# Nobody knows the name, or nobody could be asked; a server that is silent or broken ends the matter.
_ASK_SYSTEM = {socket.EAI_NONAME, socket.EAI_FAIL}


@dataclass(frozen=True, slots=True)
class Answer:
    """Addresses, and how long they may be used."""

    addresses: tuple[str, ...]
    ttl: float


class Resolver:
    """Resolves names; the same question asked at the same time is asked once.

    *servers* (address:port) are asked instead of those in resolv.conf. Failures are not kept: a second
    look at a name that failed is a look.
    """

    def __init__(
        self, counts: DnsCounts | None = None, *, servers: tuple[str, ...] = (), hosts: Path = _HOSTS
    ) -> None:
        self.source: Source = "dns"
        self.counts = counts or DnsCounts()
        self._servers = servers
        self._hosts = hosts
        self._localhost: tuple[str, ...] = ()  # read when it is first asked for
        self._kept: dict[Question, tuple[float, tuple[str, ...]]] = {}
        self._asking: dict[Question, asyncio.Task[tuple[str, ...]]] = {}
        self._dns: Any = None
        self._patient: Any = None  # another client of the library, for names that take longer than others
        self._threads: ThreadPoolExecutor | None = None
        self._forgetting: asyncio.TimerHandle | None = None

    async def addresses(self, host: str, version: IpVersion | None = None) -> tuple[str, ...]:
        """Return the addresses of *host*, best first, of one IP version if told so.

        A literal address is returned as it is; localhost is what /etc/hosts says, IPv4 first, and no DNS
        server is asked about it.
        Raises socket.gaierror when there is none. Waits as long as the caller lets it.
        """
        literal = literal_version(host)
        if literal is not None:
            if version not in (None, literal):
                raise socket.gaierror(socket.EAI_NONAME, f"is not an IPv{version} address")
            return (host,)
        name = host.lower()
        if name in ("localhost", "localhost."):
            return self._here(version)
        question = (name, version)
        kept = self._kept.get(question)
        if kept is not None and monotonic() < kept[0]:
            self.counts.hits += 1
            return kept[1]
        asking = self._asking.get(question) or self._ask(question)
        return await asyncio.shield(asking)

    def forget(self) -> None:
        """Ask anew from now on."""
        self._kept.clear()
        self._localhost = ()

    async def close(self) -> None:
        """Let go of what resolving needs."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)
        for client in (self._dns, self._patient):
            if client is not None:
                await client.close()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _here(self, version: IpVersion | None) -> tuple[str, ...]:
        self._localhost = self._localhost or localhost_of(self._hosts)
        found = tuple(ip for ip in self._localhost if version in (None, literal_version(ip)))
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "has no address")
        return found

    def _ask(self, question: Question) -> "asyncio.Task[tuple[str, ...]]":
        self.counts.lookups += 1
        task = asyncio.create_task(self._answer(question))
        self._asking[question] = task
        task.add_done_callback(lambda done: self._answered(question, done))
        return task

    def _answered(self, question: Question, task: "asyncio.Task[tuple[str, ...]]") -> None:
        del self._asking[question]
        # Whoever asked may have gone: an error that nobody takes is taken here.
        if not task.cancelled() and task.exception() is not None:
            self.counts.failures += 1

    async def _answer(self, question: Question) -> tuple[str, ...]:
        if self.source == "system":
            answer = await self._of_system(question)
        else:
            try:
                answer = await self._of_dns(question)
            except socket.gaierror as error:
                if error.errno not in _ASK_SYSTEM:
                    raise
                answer = await self._of_system(question)
        self._keep(question, answer)
        return answer.addresses

    def _keep(self, question: Question, answer: Answer) -> None:
        self._kept.pop(question, None)
        if answer.ttl <= 0:
            return
        now = monotonic()
        if len(self._kept) >= CACHE_SIZE:
            self._kept = {key: kept for key, kept in self._kept.items() if now < kept[0]}
        if len(self._kept) >= CACHE_SIZE:
            del self._kept[next(iter(self._kept))]
        self._kept[question] = (now + min(answer.ttl, KEPT_AT_MOST), answer.addresses)

    async def _of_dns(self, question: Question) -> Answer:
        host, version = question
        self._dns = self._dns or self._client()
        from aiodns.error import DNSError  # noqa: PLC0415 - here, because most never resolve a name

        try:
            found = await self._asked(host, _FAMILIES[version])
        except DNSError as error:
            self._forget_soon()
            raise _gaierror(error) from error
        except TimeoutError as error:
            raise socket.gaierror(socket.EAI_AGAIN, "no name server answers in time") from error
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, "is no host name") from error
        if not found.nodes:
            raise socket.gaierror(socket.EAI_NONAME, "has no address")
        ttl = min(record.ttl for record in (*found.nodes, *found.cnames))
        if ttl > KEPT_AT_MOST:
            self._forget_soon()
        return Answer(tuple(dict.fromkeys(node.addr[0].decode() for node in found.nodes)), ttl)

    async def _of_system(self, question: Question) -> Answer:
        """Ask the system's resolver in one of a few threads of its own: it may hold one for long."""
        host, version = question
        if self._threads is None:
            self._threads = ThreadPoolExecutor(SYSTEM_THREADS, thread_name_prefix="resolver")
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._threads, socket.getaddrinfo, host, None, _FAMILIES[version], socket.SOCK_STREAM
            )
        except UnicodeError as error:
            raise socket.gaierror(socket.EAI_NONAME, "is no host name") from error
        return Answer(tuple(dict.fromkeys(str(entry[4][0]) for entry in found)), SYSTEM_KEPT)

    async def _asked(self, host: str, family: int) -> Any:
        """Ask the DNS servers, for PATIENCE at most. Raises DNSError or TimeoutError.

        The library waits for a server five times as long as its answers took so far: for one that is near
        and mostly knows the answer that is not long enough when it has to ask others first. Those names go
        to a client that knows nothing else of the servers.
        """
        from aiodns.error import ARES_ETIMEOUT, DNSError  # noqa: PLC0415 - as above

        started = monotonic()
        try:
            return await self._dns.getaddrinfo(host, family=family, type=socket.SOCK_STREAM)
        except DNSError as error:
            left = PATIENCE - (monotonic() - started)
            if error.args[0] != ARES_ETIMEOUT or left < TRY_FOR:
                raise
        self._patient = self._patient or self._client()
        async with asyncio.timeout(left):
            return await self._patient.getaddrinfo(host, family=family, type=socket.SOCK_STREAM)

    def _client(self) -> Any:
        import aiodns  # noqa: PLC0415 - as above

        client = aiodns.DNSResolver(timeout=TRY_FOR, tries=TRIES)
        if self._servers:
            client._channel.servers = self._servers  # noqa: SLF001 - its own way drops the port
        return client

    def _forget_soon(self) -> None:
        """Have the library forget: it would keep addresses for their whole TTL, and failures too."""
        if self._forgetting is None:
            self._forgetting = asyncio.get_running_loop().call_later(FORGET_EVERY, self._forget_library)

    def _forget_library(self) -> None:
        self._forgetting = None
        for client in (self._dns, self._patient):
            if client is not None:
                client._channel.reinit()  # noqa: SLF001 - the only way it offers


def localhost_of(hosts: Path) -> tuple[str, ...]:
    """Return the loopback addresses that the file *hosts* calls localhost, IPv4 first; both when none."""
    try:
        with hosts.open(encoding="utf-8", errors="replace") as opened:
            lines = opened.read(_HOSTS_LIMIT).splitlines()
    except OSError:  # a machine without the file calls both so
        return _LOCALHOST
    words = [line.partition("#")[0].split() for line in lines]
    named = [found[0] for found in words if "localhost" in map(str.lower, found[1:])]
    found = [
        ip for ip in named if literal_version(ip) is not None and ip_address(ip.partition("%")[0]).is_loopback
    ]
    return tuple(sorted(dict.fromkeys(found), key=lambda ip: literal_version(ip) or 0)) or _LOCALHOST


@lru_cache(maxsize=4096)
def literal_version(host: str) -> IpVersion | None:
    """Return the IP version of a literal address; None for a name."""
    if ":" not in host and not host[-1:].isdigit():
        return None
    try:
        return ip_address(host.partition("%")[0]).version
    except ValueError:
        return None


def _gaierror(error: Exception) -> socket.gaierror:
    """Put an error of the library into the words of the standard library."""
    from aiodns import error as codes  # noqa: PLC0415 - as above

    unknown = {codes.ARES_ENOTFOUND, codes.ARES_ENODATA, codes.ARES_EBADNAME}
    code = error.args[0]
    if code in unknown:
        return socket.gaierror(socket.EAI_NONAME, str(error.args[-1]))
    if code == codes.ARES_ECONNREFUSED:
        return socket.gaierror(socket.EAI_FAIL, str(error.args[-1]))
    return socket.gaierror(socket.EAI_AGAIN, str(error.args[-1]))
