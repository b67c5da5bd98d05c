"""What the operating system allows this process."""

import resource

OWN_FILES = 100  # listening sockets, scrapes, logs, the loop's own
FILES_PER_PROBE = 3  # its connection, the look at a certificate that does not verify, and one in closing


def raise_open_files() -> int:
    """Allow this process as many open files as the system lets it; return how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def concurrency_for(wanted: int) -> int:
    """Return how many of *wanted* probes at once the open files suffice for; at least one."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(wanted, (files - OWN_FILES) // FILES_PER_PROBE))
