"""The text formats: what is written is what the parsers of others read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.counters import Histogram
from exporter.exposition import Family, escaped, label, number, render

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (True, "1"),
        (17, "17"),
        (-3, "-3"),
        (1.5, "1.5"),
        (3.0, "3.0"),
        (1e-07, "1e-07"),
        (2**60, "1.152921504606847e+18"),
        (math.inf, "+Inf"),
        (-math.inf, "-Inf"),
        (NAN, "NaN"),
    ],
)
def test_a_number_is_written_as_both_formats_read_it(value: float, text: str) -> None:
    assert number(value) == text
    gauge = Family(name="x", kind="gauge", help="", samples=[("", value)])

    for parse, openmetrics in ((parse_text, False), (parse_openmetrics, True)):
        (family,) = parse(render([gauge], openmetrics=openmetrics))
        assert family.samples[0].value == pytest.approx(float(value), nan_ok=True)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_any_text_is_a_label_value_that_comes_back_as_it_was(value: str) -> None:
    gauge = Family(name="x", kind="gauge", help="", samples=[(label(a=value, b="end"), 1)])

    for parse, openmetrics in ((parse_text, False), (parse_openmetrics, True)):
        (family,) = parse(render([gauge], openmetrics=openmetrics))
        assert family.samples[0].labels == {"a": value, "b": "end"}


@pytest.mark.parametrize(("value", "sent"), [("a\udc80b", "a\\udc80b"), ("a\0b", "a\ufffdb")])
def test_what_cannot_be_sent_or_would_end_the_scrape_is_replaced(value: str, sent: str) -> None:
    gauge = Family(name="x", kind="gauge", help=value, samples=[(label(a=value), 1)])

    (family,) = parse_text(render([gauge], openmetrics=False).encode().decode())

    assert family.samples[0].labels == {"a": sent}
    assert family.documentation == sent


@pytest.mark.parametrize("text", ['says "up"', "back\\slash", "two\nlines", "100 %"])
def test_a_help_text_may_have_any_characters(text: str) -> None:
    counter = Family(name="x", kind="counter", help=text, samples=[("", 1)])

    for parse, openmetrics in ((parse_text, False), (parse_openmetrics, True)):
        (family,) = parse(render([counter], openmetrics=openmetrics))
        assert (family.name, family.documentation) == ("x", text)


@pytest.mark.parametrize("labels", ["", label(target='50 % "off"')])
def test_a_histogram_cumulates_its_buckets(labels: str) -> None:
    histogram = Histogram(bounds=(0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(value)
    family = Family(name="x_seconds", kind="histogram", help="", distributions=[(labels, histogram)])

    for parse, openmetrics in ((parse_text, False), (parse_openmetrics, True)):
        (parsed,) = parse(render([family], openmetrics=openmetrics))
        counts = {sample.labels["le"]: sample.value for sample in parsed.samples if "le" in sample.labels}
        rest = {sample.name: sample.value for sample in parsed.samples if "le" not in sample.labels}
        assert counts == {"0.1": 2, "1.0": 3, "+Inf": 4}
        assert rest == {"x_seconds_count": 4, "x_seconds_sum": pytest.approx(7.65)}
        assert all(("target" in sample.labels) == bool(labels) for sample in parsed.samples)


def test_a_value_keeps_its_backslashes_apart_from_its_newlines() -> None:
    assert escaped('a\\n"\n') == 'a\\\\n\\"\\n'
