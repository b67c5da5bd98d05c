"""The schema of ``/metrics``: every metric's name, meaning and labels, and how its lines are written.

What belongs to one service or one probe is written as a tuple of texts, one for each metric in the
order of its titles, so that ``snapshots`` can keep the texts of whatever did not change.
"""

from collections.abc import Iterable, Iterator
from functools import cache

from prometheus_client import PlatformCollector, ProcessCollector

from exporter.counters import PLACES, SKIPS, Counters
from exporter.discovered import Failure, Skip
from exporter.exposition import (
    Distributions,
    Family,
    Labels,
    Samples,
    Title,
    at,
    escaped,
    histogram_template,
    histogram_values,
    label,
    line,
    number,
)
from exporter.observation import Observation, ProcessFacts, ProcessStatus, Reading, Reason
from exporter.reasons import reasons_of
from exporter.state import ProbeState, ServiceState, Settings, Verdict
from soulfra_monitor import __version__

Texts = tuple[str, ...]  # the lines of one service or probe, a text for each metric


def _title(kind: str, name: str, text: str) -> Title:
    return Title(kind=kind, name=f"soulfra_{name}", help=text)


SERVICE_TITLES = (
    _title("gauge", "service_up", "Whether the service is up (1) or confirmed down (0); none while unknown."),
    _title("gauge", "service_error_threshold", "Errors per 5 minutes that are too many."),
    _title(
        "gauge",
        "probe_timeout_threshold_seconds",
        "An answer slower than this is too slow; of probes over a network, whose time is an answer's.",
    ),
    _title("gauge", "target_info", "Facts about the target that are not numbers."),
)


def service_texts(service: ServiceState) -> Texts:
    """Write what every service has; see SERVICE_TITLES."""
    at = f"{{{label(target=service.target)}}}"
    up, errors, timeout, info = (title.name for title in SERVICE_TITLES)
    probes = [name for name, probe in service.probes.items() if probe.is_remote]
    facts = label(target=service.target, host=service.host or "", **service.labels)
    known = service.verdict is not Verdict.UNKNOWN
    return (
        f"{up}{at} {int(service.verdict is Verdict.UP)}\n" if known else "",
        f"{errors}{at} {service.error_threshold}\n",
        "".join(
            f"{timeout}{{{label(target=service.target, probe=name)}}} {number(service.timeout_threshold)}\n"
            for name in probes
        ),
        f"{info}{{{facts}}} 1\n",
    )


_PROCESS = (
    ("counter", "process_cpu_seconds", "cpu_seconds", "CPU time used by the service's processes."),
    ("gauge", "process_resident_memory_bytes", "resident_bytes", "Resident memory of the processes."),
    (
        "gauge",
        "process_memory_limit_bytes",
        "memory_limit_bytes",
        "Memory that the processes may use at most; none without a limit.",
    ),
    ("gauge", "process_open_fds", "open_fds", "Open file handles of the processes."),
    ("gauge", "process_max_fds", "max_fds", "Limits of their open file handles, added up."),
    (
        "gauge",
        "process_worst_fd_ratio",
        "worst_fd_ratio",
        "Open file handles by their limit, of the process nearest to its own.",
    ),
    ("gauge", "process_threads", "threads", "Threads of the processes."),
    ("gauge", "process_start_time_seconds", "start_time", "When the main process, the oldest, started."),
    ("gauge", "process_zombies", "zombies", "Children that ended and that no process has waited for."),
    (
        "counter",
        "process_restarts",
        "restarts",
        "How often another main process took the place of the one before while the exporter watched.",
    ),
    (
        "counter",
        "process_oom_kills",
        "oom_kills",
        "Processes killed for want of memory in the cgroup of the main process.",
    ),
)
PROCESS_TITLES = (
    *(_title(kind, name, text) for kind, name, _, text in _PROCESS),
    _title(
        "gauge",
        "process_num_procs",
        "Processes of the service: they share its port, match its pattern or descend from its pid file's.",
    ),
)


def process_texts(service: ServiceState) -> Texts:
    """Write what is known of the service's processes, see PROCESS_TITLES; none of what nobody watches."""
    runs = [probe.last for probe in service.probes.values() if probe.kind == "process" and probe.last]
    if not runs:
        return ()
    at = f"{{{label(target=service.target)}}}"
    facts = service.process if service.process and _lives(service.process) else None
    values: list[float | None] = [getattr(facts, attribute, None) for _, _, attribute, _ in _PROCESS]
    # What could not be looked at is not gone.
    gone = any(run.reason is Reason.GONE for run in runs)
    values.append(facts.group_size if facts else 0 if gone else None)
    return tuple(
        "" if value is None else f"{title.sampled}{at} {number(value)}\n"
        for title, value in zip(PROCESS_TITLES, values, strict=True)
    )


def _lives(facts: ProcessFacts) -> bool:
    return facts.status in (ProcessStatus.RUNNING, ProcessStatus.STOPPED)


def _run_titles(prefix: str, what: str) -> tuple[Title, ...]:
    return (
        _title(
            "gauge",
            f"{prefix}_success",
            f"Whether the last run of the {what} succeeded; no sample before the first.",
        ),
        _title(
            "counter",
            f"{prefix}_attempts",
            f"Runs of the {what}. They are scheduled by the exporter, more often than scrapes.",
        ),
        _title(
            "histogram", f"{prefix}_duration_seconds", f"How long runs of the {what} took, failed ones too."
        ),
        _title(
            "gauge", f"{prefix}_last_run_timestamp_seconds", f"When the {what} last ran; 0 when it never did."
        ),
        _title(
            "gauge",
            f"{prefix}_last_success_timestamp_seconds",
            f"When the {what} last succeeded; 0 when it never did.",
        ),
    )


def _failure_title(prefix: str, what: str) -> Title:
    return _title("counter", f"{prefix}_failures", f"Failed runs of the {what}, by reason.")


def _rhythm_titles(prefix: str, what: str) -> tuple[Title, ...]:
    return (
        _title("gauge", f"{prefix}_interval_seconds", f"How often the {what} runs while it succeeds."),
        _title("gauge", f"{prefix}_timeout_seconds", f"After how long the {what} gives up."),
    )


PROBE_TITLES = (
    *_run_titles("probe", "probe"),
    _title(
        "counter",
        "probe_unconfirmed_failures",
        "Failures that healed before they were confirmed, so that the service was never called down.",
    ),
    _title(
        "gauge",
        "probe_trouble",
        "1 while a failure is confirmed that tells of a problem but makes no service down.",
    ),
    _title(
        "gauge",
        "probe_fault",
        "1 while it is confirmed that the exporter cannot carry the probe out, for a reason of its own.",
    ),
    _title("gauge", "probe_phase_duration_seconds", "How long the parts of the last run took."),
    _title(
        "gauge",
        "probe_tls_not_after_timestamp_seconds",
        "When the certificate ends that the peer showed last, also if it does not verify.",
    ),
    _title("gauge", "probe_tls_verified", "Whether the certificate seen in the last run can be trusted."),
    _title("gauge", "probe_tls_info", "The version of TLS that was spoken in the last run."),
    _title("gauge", "probe_http_status_code", "The status of the last run's HTTP answer."),
    _title("gauge", "probe_http_redirects", "Redirects that were followed in the last run."),
)
PROBE_FAILURE_TITLE = _failure_title("probe", "probe")
PROBE_RHYTHM_TITLES = (
    *_rhythm_titles("probe", "probe"),
    _title("gauge", "probe_interval_on_failure_seconds", "How often the probe runs after a failure."),
    _title("gauge", "probe_confirmations", "Failures in a row after which the service is called down."),
)
EDGE_TITLES = _run_titles("dependency", "integration check")
EDGE_FAILURE_TITLE = _failure_title("dependency", "integration check")
EDGE_RHYTHM_TITLES = _rhythm_titles("dependency", "integration check")


def probe_texts(labels: Labels, state: ProbeState) -> Texts:
    """Write what changes when a probe runs; see PROBE_TITLES."""
    unconfirmed = f"soulfra_probe_unconfirmed_failures_total{{{labels}}} {state.unconfirmed.total()}\n"
    phases = state.last.outcome.phases if state.last else {}
    return (
        *_run_texts("soulfra_probe", labels, state),
        unconfirmed,
        f'soulfra_probe_trouble{{{labels},problem="{state.trouble}"}} 1\n' if state.trouble else "",
        f"soulfra_probe_fault{{{labels}}} 1\n" if state.is_faulty else "",
        "".join(
            [
                f'soulfra_probe_phase_duration_seconds{{{labels},phase="{phase}"}} {seconds:.6f}\n'
                for phase, seconds in phases.items()
            ]
        ),
        *_tls_texts(labels, state),
        *_http_texts(labels, state),
    )


def edge_texts(labels: Labels, state: ProbeState) -> Texts:
    """Write what changes when an integration is checked; see EDGE_TITLES."""
    return _run_texts("soulfra_dependency", labels, state)


def failure_text(title: Title, labels: Labels, state: ProbeState) -> str:
    """Write one line for every reason the kind of probe can give, from 0 on."""
    known = reasons_of(state.kind)
    reasons = (*known, *(reason for reason in state.failures if reason not in known))
    return at(_by_reason(title.sampled, reasons), labels) % tuple(state.failures[one] for one in reasons)


def probe_rhythm_texts(labels: Labels, settings: Settings) -> Texts:
    """Write what the configuration says of a probe; see PROBE_RHYTHM_TITLES."""
    return (
        *edge_rhythm_texts(labels, settings, PROBE_RHYTHM_TITLES),
        f"{PROBE_RHYTHM_TITLES[2].name}{{{labels}}} {number(settings.interval_on_failure)}\n",
        f"{PROBE_RHYTHM_TITLES[3].name}{{{labels}}} {settings.confirm}\n",
    )


def edge_rhythm_texts(
    labels: Labels, settings: Settings, titles: tuple[Title, ...] = EDGE_RHYTHM_TITLES
) -> Texts:
    """Write what the configuration says of an integration check; see EDGE_RHYTHM_TITLES."""
    return (
        f"{titles[0].name}{{{labels}}} {number(settings.interval)}\n",
        f"{titles[1].name}{{{labels}}} {number(settings.timeout)}\n",
    )


def _run_texts(start: str, labels: Labels, state: ProbeState) -> Texts:
    last, success = state.last, state.last_success
    durations = histogram_template(f"{start}_duration_seconds", state.durations.bounds)
    return (
        f"{start}_success{{{labels}}} {int(last.healthy)}\n" if last else "",
        f"{start}_attempts_total{{{labels}}} {state.attempts}\n",
        at(durations, labels) % histogram_values(state.durations),
        f"{start}_last_run_timestamp_seconds{{{labels}}} {_moment(last)}\n",
        f"{start}_last_success_timestamp_seconds{{{labels}}} {_moment(success)}\n",
    )


def _moment(observation: Observation | None) -> str:
    return f"{observation.at:.3f}" if observation else "0"


@cache
def _by_reason(name: str, reasons: tuple[Reason, ...]) -> str:
    return "".join(line(name, more=f',reason="{reason}"') for reason in reasons)


def _tls_texts(labels: Labels, state: ProbeState) -> Texts:
    if state.tls is None:
        return ("", "", "")
    start = "soulfra_probe_tls"
    ends = f"{start}_not_after_timestamp_seconds{{{labels}}} {number(state.tls.not_after)}\n"
    seen = state.last.outcome.tls if state.last else None
    if seen is None:
        return (ends, "", "")
    version = f'{start}_info{{{labels},version="{escaped(seen.version)}"}} 1\n' if seen.version else ""
    return (ends, f"{start}_verified{{{labels}}} {int(seen.verified)}\n", version)


def _http_texts(labels: Labels, state: ProbeState) -> Texts:
    http = state.last.outcome.http if state.last else None
    if http is None:
        return ("", "")
    return (
        f"soulfra_probe_http_status_code{{{labels}}} {http.status}\n",
        f"soulfra_probe_http_redirects{{{labels}}} {http.redirects}\n",
    )


def reading_line(title: Title, labels: Labels, reading: Reading) -> str:
    """Write one value of a kind's own metric."""
    own = zip(reading.measure.labels, reading.labels, strict=True)
    more = "".join([f',{name}="{escaped(value)}"' for name, value in own])
    return f"{title.sampled}{{{labels}{more}}} {number(reading.value)}\n"


_OWN_PROCESS = (ProcessCollector(registry=None), PlatformCollector(registry=None))


def exporter_families(*, blind: bool, targets: int, refused: int, counters: Counters) -> Iterator[Family]:
    """All metrics of the exporter itself."""
    yield _gauge(
        "prober_blind",
        "Whether so many targets fail at once that the exporter itself is suspected.",
        [("", int(blind))],
    )
    yield _gauge("exporter_build_info", "The version of the exporter.", [(label(version=__version__), 1)])
    yield _gauge(
        "exporter_config_last_reload_successful",
        "Whether the last reading of the configuration succeeded.",
        [("", int(counters.reload_successful))],
    )
    yield _gauge(
        "exporter_config_last_reload_success_timestamp_seconds",
        "When the configuration was last read successfully.",
        [("", counters.reload_success_at)],
    )
    yield _gauge("exporter_targets", "Services that are watched.", [("", targets)])
    yield _gauge("exporter_probes_in_progress", "Probes that run now.", [("", counters.in_progress)])
    yield _histogram(
        "exporter_schedule_lag_seconds", "How late probes started.", [("", counters.schedule_lag)]
    )
    yield _gauge(
        "exporter_event_loop_lag_seconds",
        "The largest delay of the event loop in the last 10 seconds; it adds to every latency.",
        [("", counters.event_loop_lag)],
    )
    yield _counter(
        "exporter_probes_skipped",
        "Runs that did not take place or did not count, by reason.",
        ((label(reason=reason), counters.skipped[reason]) for reason in SKIPS),
    )
    yield _counter(
        "exporter_internal_errors",
        "Faults of the exporter itself, by place.",
        ((label(place=place), counters.internal_errors[place]) for place in PLACES),
    )
    yield _gauge(
        "exporter_readings_refused",
        "Readings of probes that are not exposed: another metric has the name, or it is no valid one.",
        [("", refused)],
    )
    yield from _of_load(counters)
    yield from _of_fast_path(counters)
    if counters.discovery:
        yield from _of_discovery(counters)
    yield from _of_own_process()


def _of_load(counters: Counters) -> Iterator[Family]:
    yield _gauge(
        "exporter_concurrency_limit", "How many probes may run at once.", [("", counters.concurrency)]
    )
    yield _counter(
        "exporter_probes_delayed",
        "Time-outs that the exporter caused itself, because its loop was held.",
        [("", counters.delayed)],
    )
    dns = counters.dns
    yield _counter("exporter_dns_lookups", "Names that were looked up.", [("", dns.lookups)])
    yield _counter("exporter_dns_cache_hits", "Names whose addresses were still known.", [("", dns.hits)])
    yield _counter("exporter_dns_failures", "Lookups of names that failed.", [("", dns.failures)])


def _of_fast_path(counters: Counters) -> Iterator[Family]:
    yield _counter(
        "exporter_fast_path_posts",
        "Posts of alerts straight to an Alertmanager.",
        ((label(alertmanager=url), count) for url, count in counters.posts.items()),
    )
    yield _counter(
        "exporter_fast_path_failures",
        "Such posts that failed.",
        ((label(alertmanager=url), counters.post_failures[url]) for url in counters.posts),
    )


def _of_discovery(counters: Counters) -> Iterator[Family]:
    sources = [(label(source=name), counts) for name, counts in counters.discovery.items()]
    yield _gauge(
        "discovery_targets",
        "Targets that the source names, also those that are skipped.",
        [(source, counts.targets) for source, counts in sources],
    )
    yield _gauge(
        "discovery_skipped_targets",
        "Targets of the source that did not become services, by reason.",
        [
            (f'{source},reason="{reason}"', counts.skipped[reason])
            for source, counts in sources
            for reason in Skip
        ],
    )
    yield _counter(
        "discovery_failures",
        "Looks at the source that failed, so that its last good targets stayed, by reason.",
        [
            (f'{source},reason="{failure}"', counts.failures[failure])
            for source, counts in sources
            for failure in Failure
        ],
    )
    yield _gauge(
        "discovery_last_success_timestamp_seconds",
        "When the source was last asked successfully; 0 when it never was.",
        [(source, counts.last_success) for source, counts in sources],
    )
    yield _gauge(
        "discovery_refresh_seconds",
        "How often the source is asked.",
        [(source, counts.refresh) for source, counts in sources],
    )


def _of_own_process() -> Iterator[Family]:
    """Tell of the exporter's own process, under the names that all Prometheus clients and dashboards use."""
    for collector in _OWN_PROCESS:
        for metric in collector.collect():
            samples = [(label(**sample.labels), sample.value) for sample in metric.samples]
            yield Family(name=metric.name, kind=metric.type, help=metric.documentation, samples=samples)


def _gauge(name: str, help_text: str, samples: Samples) -> Family:
    return Family(name=f"soulfra_{name}", kind="gauge", help=help_text, samples=samples)


def _counter(name: str, help_text: str, samples: Iterable[tuple[Labels, float]]) -> Family:
    return Family(name=f"soulfra_{name}", kind="counter", help=help_text, samples=samples)


def _histogram(name: str, help_text: str, distributions: Distributions) -> Family:
    return Family(name=f"soulfra_{name}", kind="histogram", help=help_text, distributions=distributions)
