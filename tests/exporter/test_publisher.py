"""What the exporter's log says when thousands of services change at once."""

import logging

import pytest

from exporter import publisher
from exporter.publisher import LINES, ShortLog


@pytest.fixture(autouse=True)
def heard(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger=publisher.__name__)


async def test_a_few_changes_have_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    told = ShortLog()
    for number in range(LINES):
        told.write(logging.INFO, "down", "s%d is down", number)
    told.flush()

    assert caplog.messages == [f"s{number} is down" for number in range(LINES)]


async def test_of_many_changes_it_is_said_how_many_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    told = ShortLog()
    for number in range(LINES + 1500):
        told.write(logging.INFO, "down (was up)", "s%d is down", number)
    told.write(logging.WARNING, "alerts held back", "the alert of s1 is held back")
    told.flush()

    assert caplog.messages[LINES:] == [
        "and 1,500 more services in the same second: down (was up)",
        "and 1 more services in the same second: alerts held back",
    ]
    assert [one.levelno for one in caplog.records[LINES:]] == [logging.INFO, logging.WARNING]


async def test_the_next_second_has_lines_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    told = ShortLog()
    for number in range(LINES + 1):
        told.write(logging.INFO, "down", "s%d is down", number)
    told.flush()
    told.write(logging.INFO, "up", "s0 is up")
    told.flush()

    assert caplog.messages[-1] == "s0 is up"
