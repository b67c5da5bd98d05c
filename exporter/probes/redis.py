"""Send PING to a Redis server and hold what INFO says against what is expected.

The readings are what a repair or its prevention turns on: how full it is, whom it turns away, what
it has thrown out, how far its replicas are behind, and whether it can save. Statistics of the data
itself are left to redis_exporter.
"""

from collections.abc import Iterator, Mapping

import hiredis

from exporter.kinds.redis import RedisProbe
from exporter.observation import Measure, Outcome, Reading, Reason
from exporter.probes.context import Context, Progress, guarded
from exporter.probes.redis_peer import Peer, reason_of, talk

_SECTIONS = ("server", "clients", "memory", "persistence", "stats", "replication")
_PLAIN_INFO = "info_without_sections"  # key of what is recalled
_ROLES = {"master": "master", "slave": "replica"}
_DIGITS = 20

Info = Mapping[str, str]
Finding = tuple[Reason, str]

_FIELDS: tuple[tuple[str, Measure], ...] = (
    ("used_memory", Measure(name="redis_memory_used_bytes", help="Memory that Redis has allocated.")),
    ("connected_clients", Measure(name="redis_connected_clients", help="Client connections.")),
    ("maxclients", Measure(name="redis_max_clients", help="Client connections that are let in.")),
    ("blocked_clients", Measure(name="redis_blocked_clients", help="Clients in a blocking command.")),
    (
        "rejected_connections",
        Measure(
            name="redis_rejected_connections",
            help="Connections turned away because maxclients was reached.",
            type="counter",
        ),
    ),
    (
        "evicted_keys",
        Measure(name="redis_evicted_keys", help="Keys thrown out because of maxmemory.", type="counter"),
    ),
    ("connected_slaves", Measure(name="redis_connected_replicas", help="Replicas that are connected.")),
    (
        "rdb_last_save_time",
        Measure(
            name="redis_last_save_timestamp_seconds",
            help="When the data was last saved as RDB, or the start if it never was.",
        ),
    ),
)
"""Fields of INFO that are readings as they stand."""

_MEMORY_MAX = Measure(name="redis_memory_max_bytes", help="The limit maxmemory; absent when there is none.")
_START_TIME = Measure(name="redis_start_time_seconds", help="When the server started.")
_MASTER = Measure(name="redis_master", help="1 for a master, 0 for a replica.")
_SAVING = Measure(
    name="redis_last_save_success",
    help="Whether the last saves, as RDB and AOF, succeeded; 0 may mean that writes are refused.",
)
_LAG = Measure(
    name="redis_replication_lag_bytes",
    help="What the master has written and the replica farthest behind has not confirmed; of masters.",
)
_LINK = Measure(name="redis_master_link_up", help="Whether a replica is connected to its master.")
_LAST_IO = Measure(
    name="redis_master_last_io_timestamp_seconds", help="When a replica last heard of its master."
)


async def probe(config: RedisProbe, context: Context) -> Outcome:
    """Connect, PING, INFO, once. Never raises: a failure is the outcome."""
    progress = context.progress()

    async def conversation(peer: Peer) -> Outcome:
        return await _converse(peer, config, context, progress)

    return await guarded(talk(config, context, progress, conversation), progress, context.timeout)


async def _converse(peer: Peer, config: RedisProbe, context: Context, progress: Progress) -> Outcome:
    pong = await peer.ask("PING")
    progress.reach("processing")
    if pong != "PONG":
        return progress.outcome(Reason.PROTOCOL, "PING was not answered with PONG")
    progress.note("PING was answered with PONG")
    info = await _info(peer, context, progress)
    progress.reach("transfer")
    if info is None:
        needed = _needs_info(config)
        if needed:
            return progress.outcome(
                Reason.INTERNAL, f"INFO is refused to this user, and {needed[0]} needs it"
            )
        return progress.outcome(detail="PONG")
    readings = tuple(readings_of(info))
    progress.note("INFO: %s", ", ".join(f"{seen.measure.name} {seen.value:.15g}" for seen in readings))
    reason, detail = judge(config, info) or (None, f"PONG from the {role_of(info)}")
    return progress.outcome(reason, detail, readings=readings)


async def _info(peer: Peer, context: Context, progress: Progress) -> Info | None:
    """Ask for INFO; None when the server refuses it, by ACL, by renaming or because it has none."""
    plain = context.recall.get(_PLAIN_INFO, False)
    try:
        answer = await peer.ask("INFO", *(() if plain else _SECTIONS))
    except hiredis.ReplyError as error:
        if not plain and str(error).startswith("ERR syntax error"):
            # Before Redis 7 it takes one section or none.
            context.recall[_PLAIN_INFO] = True
            return await _info(peer, context, progress)
        progress.note("INFO is refused: %s", reason_of(str(error))[1])
        return None
    if not isinstance(answer, str):
        raise hiredis.ProtocolError("INFO is no text")
    lines = (line.partition(":") for line in answer.splitlines() if not line.startswith("#"))
    return {key: value for key, _, value in lines if value}


def _needs_info(config: RedisProbe) -> list[str]:
    keys = ("role", "max_lag", "max_lag_bytes", "min_replicas", "max_memory", "max_clients")
    return [key for key in keys if getattr(config, key) is not None]


def role_of(info: Info) -> str:
    """Return ``master``, ``replica``, or what the server calls itself."""
    said = info.get("role", "")
    return _ROLES.get(said, said) or "server without a role"


def readings_of(info: Info) -> Iterator[Reading]:
    """Turn INFO into readings; what the server does not tell is left out."""
    for key, measure in _FIELDS:
        if (value := _number(info, key)) is not None:
            yield Reading(measure, value)
    if maximum := _number(info, "maxmemory"):
        yield Reading(_MEMORY_MAX, maximum)
    now, uptime = _number(info, "server_time_usec"), _number(info, "uptime_in_seconds")
    if now is not None and uptime is not None:
        yield Reading(_START_TIME, now // 1_000_000 - uptime)
    saves = [info[key] for key in ("rdb_last_bgsave_status", "aof_last_write_status") if key in info]
    if saves:
        yield Reading(_SAVING, int(all(status == "ok" for status in saves)))
    if info.get("role") in _ROLES:
        yield Reading(_MASTER, int(info["role"] == "master"))
    yield from _replication(info, now)


def _replication(info: Info, now: float | None) -> Iterator[Reading]:
    if role_of(info) == "master":
        if (lag := _lag_bytes(info)) is not None:
            yield Reading(_LAG, lag)
    elif "master_link_status" in info:
        yield Reading(_LINK, int(info["master_link_status"] == "up"))
        ago = _number(info, "master_last_io_seconds_ago")
        if ago is not None and now is not None:
            yield Reading(_LAST_IO, now // 1_000_000 - ago)


def judge(config: RedisProbe, info: Info) -> Finding | None:
    """Hold INFO against what is expected and say what is wrong, or None."""
    role = role_of(info)
    if config.role is not None and role != config.role:
        return Reason.ROLE, f"is {role}, expected {config.role}"
    memory = _over_ratio(info, ("used_memory", "maxmemory"), config.max_memory, "memory")
    clients = _over_ratio(info, ("connected_clients", "maxclients"), config.max_clients, "clients")
    return memory or clients or _few_replicas(config, info) or _behind(config, info)


def _over_ratio(info: Info, keys: tuple[str, str], limit: float | None, what: str) -> Finding | None:
    if limit is None:
        return None
    used, maximum = (_number(info, key) for key in keys)
    if used is None or maximum is None:
        return _untold(what)
    # Without a maximum there is no share of it.
    if not maximum or used / maximum <= limit:
        return None
    return Reason.LIMIT, f"{what}: {used:.0f} of {maximum:.0f}, allowed are {100 * limit:g}%"


def _few_replicas(config: RedisProbe, info: Info) -> Finding | None:
    if config.min_replicas is None or role_of(info) != "master":
        return None
    online = len(_replicas(info))
    if online >= config.min_replicas:
        return None
    return Reason.LIMIT, f"has {online} replicas online, expected {config.min_replicas} at least"


def _behind(config: RedisProbe, info: Info) -> Finding | None:
    if role_of(info) != "master":
        return None if config.max_lag is None else _unlinked(config.max_lag, info)
    lag = _lag_bytes(info)
    if lag is not None and config.max_lag_bytes is not None and lag > config.max_lag_bytes:
        return Reason.LIMIT, f"a replica is {lag:.0f} bytes behind, allowed are {config.max_lag_bytes}"
    silent = max((_number(replica, "lag") or 0 for replica in _replicas(info)), default=0.0)
    if config.max_lag is not None and silent > config.max_lag:
        return Reason.LIMIT, f"a replica is silent for {silent:.0f} s, allowed are {config.max_lag:g} s"
    return None


def _unlinked(limit: float, info: Info) -> Finding | None:
    if info.get("master_link_status") == "up":
        seconds, what = _number(info, "master_last_io_seconds_ago"), "its master is silent"
    else:
        # A replica that never had a master counts from its start.
        down = _number(info, "master_link_down_since_seconds")
        seconds = _number(info, "uptime_in_seconds") if down is None else down
        what = "the link to its master is down"
    if seconds is None:
        return _untold("the link to its master")
    return (
        None if seconds <= limit else (Reason.LIMIT, f"{what} for {seconds:.0f} s, allowed are {limit:g} s")
    )


def _untold(what: str) -> Finding:
    return Reason.INTERNAL, f"INFO does not tell {what}, so the limit cannot be judged"


def _lag_bytes(info: Info) -> float | None:
    """Return how far the last of the replicas is behind; None without any."""
    written = _number(info, "master_repl_offset")
    confirmed = [_number(replica, "offset") for replica in _replicas(info)]
    known = [offset for offset in confirmed if offset is not None]
    return None if written is None or not known else max(0.0, written - min(known))


def _replicas(info: Info) -> list[Info]:
    """Read the lines ``slave0:ip=...,port=...,state=online,offset=...,lag=...``, of those online.

    One that is still being sent the data has confirmed nothing.
    """
    lines = (value for key, value in info.items() if key[:5] == "slave" and key[5:].isdecimal())
    pairs = ([part.partition("=") for part in line.split(",")] for line in lines)
    replicas = [{key: value for key, _, value in line} for line in pairs]
    return [replica for replica in replicas if replica.get("state") == "online"]


def _number(info: Info, key: str) -> float | None:
    text = info.get(key, "")
    return float(text) if text.isdecimal() and text.isascii() and len(text) <= _DIGITS else None
