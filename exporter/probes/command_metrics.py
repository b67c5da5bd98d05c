"""Reads the metrics that a command writes, in the text format of Prometheus."""

import re
from collections.abc import Iterable, Mapping
from typing import Literal

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from exporter.observation import Measure, Reading, Reason, shorten

SAMPLES_LIMIT = 200
LABELS_LIMIT = 16
VALUE_LIMIT = 200  # characters of the value of a label
_LINES_LIMIT = 2000
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,99}\Z")
_OURS = frozenset({"target", "probe", "job", "instance", "le", "quantile"})
_TOTAL = "_total"


class NoMetricsError(Exception):
    """What a command wrote cannot be taken as metrics."""

    def __init__(self, message: str, reason: Reason = Reason.PROTOCOL) -> None:
        super().__init__(message)
        self.reason = reason


def read_metrics(text: bytes) -> tuple[list[Reading], list[str]]:
    """Return the readings in *text*, and the names of metrics of other types. Raises NoMetricsError."""
    readings: list[Reading] = []
    passed_over: list[str] = []
    for family in _families(text):
        kind = _kind(family)
        if kind is None:
            passed_over.append(family.name)
        else:
            readings += [_reading(family, kind, sample) for sample in family.samples]
    seen = {(reading.measure.name, frozenset(_pairs(reading))) for reading in readings}
    if len(seen) < len(readings):
        raise NoMetricsError("a metric comes twice with the same labels")
    if len({(reading.measure.name, reading.measure.type) for reading in readings}) > len(
        {reading.measure.name for reading in readings}
    ):
        raise NoMetricsError("a metric comes with two types")
    return readings, passed_over


def _families(text: bytes) -> list[Metric]:
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as error:
        raise NoMetricsError("the metrics are not UTF-8") from error
    samples = sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in lines)
    if samples > SAMPLES_LIMIT or len(lines) > _LINES_LIMIT:
        raise NoMetricsError(f"more than {SAMPLES_LIMIT} metrics", Reason.TOO_LARGE)
    try:
        return list(text_string_to_metric_families("\n".join(lines)))
    except Exception as error:  # the edge: the parser raises many things for a stranger's text
        raise NoMetricsError(f"the metrics cannot be read: {shorten(str(error), 80)}") from error


def _kind(family: Metric) -> Literal["gauge", "counter"] | None:
    """Return what it is; a metric without a type is a counter if its name says so, else a gauge."""
    if family.type == "counter":
        return "counter"
    if family.type == "unknown":
        return "counter" if family.name.endswith(_TOTAL) else "gauge"
    return "gauge" if family.type == "gauge" else None


def _reading(family: Metric, kind: Literal["gauge", "counter"], sample: Sample) -> Reading:
    name = sample.name.removesuffix(_TOTAL) if kind == "counter" else sample.name
    if not _NAME.match(name) or (kind == "gauge" and name.endswith(_TOTAL)):
        raise NoMetricsError(f"{shorten(sample.name, 80)} is no name for a {kind}")
    if sample.timestamp is not None:
        raise NoMetricsError(f"{name} has a timestamp; the exporter gives that itself")
    _check(name, sample.labels)
    measure = Measure(
        name=f"command_{name}",
        help=shorten(family.documentation) or f"{name}, as the command tells it.",
        type=kind,
        labels=tuple(sample.labels),
    )
    return Reading(measure, sample.value, tuple(sample.labels.values()))


def _check(name: str, labels: Mapping[str, str]) -> None:
    if len(labels) > LABELS_LIMIT:
        raise NoMetricsError(f"{name} has more than {LABELS_LIMIT} labels")
    for label, value in labels.items():
        if label in _OURS or label.startswith("__") or not _NAME.match(label):
            raise NoMetricsError(f"{name} has the label {shorten(label, 80)}, which it must not have")
        if len(value) > VALUE_LIMIT:
            raise NoMetricsError(f"the label {label} of {name} is longer than {VALUE_LIMIT} characters")


def _pairs(reading: Reading) -> Iterable[tuple[str, str]]:
    return zip(reading.measure.labels, reading.labels, strict=True)
