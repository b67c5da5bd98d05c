"""The closed lists that every part of Soulfra Monitor speaks: problems and severities."""

from enum import StrEnum


class Problem(StrEnum):
    """What is wrong with a target; the ``type`` of an error in the API. New ones are added here."""

    SERVICE_DOWN = "service_down"
    SERVICE_TIMEOUT = "service_timeout"
    SERVICE_DEGRADED = "service_degraded"
    ERROR_RATE = "error_rate"
    UNCAUGHT_EXCEPTION = "uncaught_exception"
    UNHANDLED_REJECTION = "unhandled_rejection"
    SWALLOWED_ERROR = "swallowed_error"
    NETWORK_TIMEOUT = "network_timeout"
    CONNECTION_REFUSED = "connection_refused"
    DEPENDENCY_FAILURE = "dependency_failure"
    REDIS_UNAVAILABLE = "redis_unavailable"
    DATABASE_UNAVAILABLE = "database_unavailable"
    MEMORY_PRESSURE = "memory_pressure"
    MEMORY_LEAK = "memory_leak"
    HANDLE_EXHAUSTION = "handle_exhaustion"
    DISK_FULL = "disk_full"
    PERMISSION_DENIED = "permission_denied"
    MISSING_FILE = "missing_file"
    STALE_LOCK = "stale_lock"
    QUEUE_STUCK = "queue_stuck"
    HEARTBEAT_MISSED = "heartbeat_missed"
    STATE_INCONSISTENT = "state_inconsistent"
    PROVIDER_QUOTA = "provider_quota"
    LOOP_BLOCKED = "loop_blocked"
    PROCESS_DIED = "process_died"
    TLS_EXPIRY = "tls_expiry"
    FLAPPING = "flapping"
    ANOMALY = "anomaly"
    PROBER_BLIND = "prober_blind"
    PROBE_STALE = "probe_stale"
    PROBE_FAULT = "probe_fault"
    TARGET_VANISHED = "target_vanished"
    CONFIG_INVALID = "config_invalid"
    EVENTS_DROPPED = "events_dropped"
    SENDER_SILENT = "sender_silent"
    OTHER = "other"

    @classmethod
    def of(cls, text: str | None) -> "Problem":
        """Read a label; a text that is on no list is ``other``, never an error."""
        return cls(text) if text and text in cls._value2member_map_ else cls.OTHER


class Severity(StrEnum):
    """How bad it is, on the scale of the API and the store."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @classmethod
    def of_alert(cls, severity: str | None, impact: str | None = None) -> "Severity":
        """Translate Prometheus's ``severity`` (and ``impact``, which splits ``warning``).

        Anything unknown means medium.
        """
        if severity == "warning":
            return cls.HIGH if impact == cls.HIGH else cls.MEDIUM
        return _OF_ALERT.get(severity or "", cls.MEDIUM)


_OF_ALERT = {
    "critical": Severity.CRITICAL,
    "high": Severity.HIGH,
    "medium": Severity.MEDIUM,
    "low": Severity.LOW,
    "info": Severity.LOW,
}
