"""Which format a scraper gets for its Accept header."""

import pytest

from exporter.negotiation import OLD_OPENMETRICS, OPENMETRICS, TEXT, Format, negotiate, takes

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROTOBUF_FIRST = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/*", TEXT),
        ("application/*", OPENMETRICS),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        (PROTOBUF_FIRST, TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=0.0.1", OLD_OPENMETRICS),
        ('Application/OpenMetrics-Text; Version="1.0.0"', OPENMETRICS),
        ("application/openmetrics-text;version=2.0.0", TEXT),
        ("application/openmetrics-text;version=1.0.0;q=0", TEXT),
        ("application/openmetrics-text;q=0,*/*", TEXT),
        ("text/plain;q=0,*/*", OPENMETRICS),
        ("text/plain,application/openmetrics-text", TEXT),
        ("application/openmetrics-text,text/plain", OPENMETRICS),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.3", TEXT),
        ("*/*,application/openmetrics-text", OPENMETRICS),
        ("text/plain;version=1.0.0", TEXT),
        ("text/html,application/xhtml+xml,*/*;q=0.8", TEXT),
        ("image/png", TEXT),
        ("*/*;q=0", TEXT),
        ("application/openmetrics-text;q=high", TEXT),
        ("application/openmetrics-text;q=2", TEXT),
        (";;,,=;q", TEXT),
        ("application/openmetrics-text," * 5000, OPENMETRICS),
    ],
)
def test_the_most_exact_and_best_liked_format_is_taken(accept: str, wanted: Format) -> None:
    assert negotiate(accept) == wanted


def test_content_types_are_those_that_prometheus_knows() -> None:
    assert TEXT.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert OPENMETRICS.content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert OLD_OPENMETRICS.content_type == "application/openmetrics-text; version=0.0.1; charset=utf-8"


@pytest.mark.parametrize(
    ("header", "taken"),
    [
        ("gzip", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip;q=0.0, identity", False),
        ("gzipped", False),
        ("identity", False),
        ("", False),
    ],
)
def test_answers_are_compressed_for_those_who_take_it(header: str, taken: bool) -> None:
    assert takes(header, "gzip") is taken
