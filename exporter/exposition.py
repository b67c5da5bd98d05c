"""The two text formats of metrics: Prometheus's own and OpenMetrics. Knows nothing of probes.

Own lines instead of prometheus_client's collectors: those need about 6 µs per sample where this
needs well under 1, on the event loop whose delay the latencies of the probes would show.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import isfinite, isnan

from exporter.counters import Histogram

END_OF_OPENMETRICS = "# EOF\n"

Labels = str  # rendered, without braces
Sample = tuple[Labels, float]
Samples = Iterable[Sample]
Distributions = Iterable[tuple[Labels, Histogram]]

_EXACT = 2**53  # whole numbers up to here are the same as integers and as floats
_AT = "\0"  # where the labels go in a template; no rendered label has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Title:
    """What one metric is called, without a counter's ``_total``, and what it means."""

    name: str
    kind: str  # gauge, counter or histogram
    help: str

    @property
    def sampled(self) -> str:
        """The name that the samples have."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    def lines(self, *, openmetrics: bool) -> str:
        """Write the comments above the samples; only OpenMetrics names counters without ``_total``."""
        name = self.name if openmetrics else self.sampled
        text = _plain(self.help).replace("\\", "\\\\").replace("\n", "\\n")
        if openmetrics:
            text = text.replace('"', '\\"')
        return f"# HELP {name} {text}\n# TYPE {name} {self.kind}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One metric with its samples or distributions."""

    name: str
    kind: str
    help: str
    samples: Samples = ()
    distributions: Distributions = ()

    @property
    def title(self) -> Title:
        """Its name and meaning."""
        return Title(name=self.name, kind=self.kind, help=self.help)

    def lines(self, *, openmetrics: bool) -> Iterator[str]:
        """Write the family in one of the two text formats, each piece with its line end."""
        title = self.title
        sampled = title.sampled
        yield title.lines(openmetrics=openmetrics)
        for labels, value in self.samples:
            yield f"{sampled}{{{labels}}} {number(value)}\n" if labels else f"{sampled} {number(value)}\n"
        for labels, histogram in self.distributions:
            yield histogram_lines(self.name, labels, histogram)


def render(families: Iterable[Family], *, openmetrics: bool) -> str:
    """Write all families in the text format of Prometheus or in OpenMetrics."""
    lines = [line for family in families for line in family.lines(openmetrics=openmetrics)]
    return "".join([*lines, END_OF_OPENMETRICS if openmetrics else ""])


def label(**values: str) -> Labels:
    """Render labels; any text is a valid value."""
    return ",".join(f'{name}="{escaped(value)}"' for name, value in values.items())


def escaped(value: str) -> str:
    """Make any text a valid label value that can be sent."""
    return _plain(value).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def number(value: float) -> str:
    """Write a value in the way that both formats read."""
    if isinstance(value, int) and -_EXACT <= value <= _EXACT:
        return str(int(value))  # int: a bool is a number here
    if isfinite(value):
        return repr(float(value))
    if isnan(value):
        return "NaN"
    return "+Inf" if value > 0 else "-Inf"


def at(template: str, labels: Labels) -> str:
    """Return *template* with *labels* in their places, ready to take values by ``%``."""
    return template.replace(_AT, labels.replace("%", "%%"))


def line(name: str, value: str = "%d", more: str = "") -> str:
    """Return the template of one line: ``at`` fills in the labels, ``%`` the value."""
    return f"{name}{{{_AT}{more}}} {value}\n"


@lru_cache(maxsize=64)
def histogram_template(name: str, bounds: tuple[float, ...]) -> str:
    """Return the template of a histogram's lines; takes what ``histogram_values`` returns."""
    buckets = [line(f"{name}_bucket", more=f',le="{bound}"') for bound in (*bounds, "+Inf")]
    return "".join([*buckets, line(f"{name}_count"), line(f"{name}_sum", "%.6f")])


def histogram_values(histogram: Histogram) -> tuple[float, ...]:
    """Return the cumulated counts of the buckets, the count and the sum."""
    sums = tuple(accumulate(histogram.counts))
    return (*sums, sums[-1], histogram.total)


def histogram_lines(name: str, labels: Labels, histogram: Histogram) -> str:
    """Write one histogram."""
    text = at(histogram_template(name, histogram.bounds), labels) % histogram_values(histogram)
    return text if labels else text.replace("{,", "{").replace("{}", "")


def _plain(text: str) -> str:
    """Take out what could not be sent as UTF-8, and the character at which Prometheus stops reading."""
    sendable = text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
    return sendable.replace("\0", "\N{REPLACEMENT CHARACTER}")
