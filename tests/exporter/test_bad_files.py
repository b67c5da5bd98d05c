"""Every rule of the configuration has a file in bad/ that breaks it and says what has to be found."""

import re
import time
from itertools import takewhile
from pathlib import Path

import pytest

from exporter import document
from exporter.config import WatchConfig
from exporter.document import ConfigError, Mistake, parse_document, read_document
from exporter.loading import load_config

FILES = sorted((Path(__file__).parent / "bad").glob("*.yml"))
WANTED = re.compile(r"^# (\d+|-): (.*?): (.+)$")


def wanted_of(file: Path) -> list[tuple[str, str, str]]:
    lines = file.read_text(errors="replace").splitlines()
    found = [WANTED.match(line) for line in takewhile(lambda line: line.startswith("# "), lines)]
    return [(match[1], match[2], match[3]) for match in found if match]


def is_as_wanted(mistake: Mistake, wanted: tuple[str, str, str]) -> bool:
    line, place, message = wanted
    begins = message.removesuffix("...") if message.endswith("...") else None
    said = mistake.message.startswith(begins) if begins is not None else mistake.message == message
    return (str(mistake.line or "-"), mistake.place) == (line, place) and said


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_that_breaks_a_rule_is_refused_with_line_place_and_mend(file: Path) -> None:
    wanted = wanted_of(file)
    assert wanted, "the file does not say in its first lines what has to be found"
    began = time.monotonic()

    with pytest.raises(ConfigError) as caught:
        load_config(file, WatchConfig, {})

    found = caught.value.mistakes
    assert len(found) == len(wanted), found
    assert all(is_as_wanted(*pair) for pair in zip(found, wanted, strict=True)), found
    assert all(mistake.file == str(file) for mistake in found)
    assert time.monotonic() - began < 5


def test_there_is_a_file_for_many_rules() -> None:
    assert len(FILES) > 60


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "soulfra.yml"
    file.write_bytes(b"#" * (document.SIZE_LIMIT + 1))

    with pytest.raises(ConfigError, match="has more than 8 MiB"):
        read_document(file)


@pytest.mark.parametrize("text", ["[" * 1_000_000, "- " * 100_000, "{a: " * 100_000, "? " * 100_000])
def test_no_nesting_ends_the_process(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nested more than 50 levels deep"):
        parse_document(text, tmp_path / "soulfra.yml")


def test_aliases_and_merge_keys_that_are_meant_still_work(tmp_path: Path) -> None:
    text = "base: &base {host: a, depends_on: []}\nservices:\n  x: {<<: *base, host: b}\n  y: *base\n"

    data = parse_document(text, tmp_path / "soulfra.yml").data

    assert data["services"] == {"x": {"host": "b", "depends_on": []}, "y": {"host": "a", "depends_on": []}}


def test_five_thousand_services_are_read_in_a_moment(tmp_path: Path) -> None:
    service = "{probes: [{tcp: '127.0.0.1:1', timeout: 2s}], depends_on: []}"
    text = "services:\n" + "".join(f"  agent-{number}: {service}\n" for number in range(5000))

    began = time.process_time()
    found = parse_document(text, tmp_path / "soulfra.yml")

    assert time.process_time() - began < 4
    assert found.lines["services", "agent-4999", "probes", 0, "tcp"] == 5001
