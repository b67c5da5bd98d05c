"""The keys of the kinds that look at the exporter's own host: every rule with a file that breaks it."""

from pathlib import Path

import pytest

from exporter.config import WatchConfig
from exporter.document import ConfigError
from exporter.kinds.file import FileProbe
from exporter.kinds.filesystem import FilesystemProbe
from exporter.loading import load_config

PATH = "must be an absolute path, for example /var/backups/shop.tar.gz"
SIZE = "a size is a number of bytes, or one with its unit, for example 500kB, 10MiB or 5GiB"
SHARE = "a share is written in percent, for example 10%"
MODE = 'a mode is written in quotes and octal, for example "0640"'


def load(tmp_path: Path, text: str) -> WatchConfig:
    file = tmp_path / "soulfra.yml"
    file.write_text(text)
    return load_config(file, WatchConfig, {})


def mistakes(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    return [f"{found.place}: {found.message}" for found in caught.value.mistakes]


@pytest.mark.parametrize(
    ("process", "mistake"),
    [
        ("{port: 1, count: {}}", "count: say at_least, at_most or both"),
        ("{port: 1, count: {at_least: 0}}", "count.at_least: must be at least 1"),
        ("{port: 1, count: {at_most: 0}}", "count.at_most: must be at least 1"),
        (
            "{port: 1, count: {at_least: 3, at_most: 2}}",
            "count: at_least must not be greater than at_most",
        ),
        ("{port: 1, count: {least: 2}}", "count.least: unknown key"),
    ],
)
def test_a_mistake_in_a_process(tmp_path: Path, process: str, mistake: str) -> None:
    assert mistakes(tmp_path, f"services: {{a: {{process: {process}}}}}") == [f"services.a.process.{mistake}"]


@pytest.mark.parametrize(
    ("probe", "mistake"),
    [
        ("{file: backups/x}", f".file: {PATH}"),
        ("{file: /x, mode: 640}", f".mode: {MODE}"),
        ("{file: /x, mode: '0999'}", f".mode: {MODE}"),
        ("{file: /x, mode: {at_most: 0640}}", f".mode.at_most: {MODE}"),
        ("{file: /x, min_size: 5 apples}", f".min_size: {SIZE}"),
        ("{file: /x, max_size: -1}", f".max_size: {SIZE}"),
        ("{file: /x, type: pipe}", ".type: must be 'file', 'directory' or 'socket'"),
        (
            "{file: /x, max_age: 3600}",
            ".max_age: a duration is written with its unit, for example 500ms, 5s or 1m30s",
        ),
        (
            "{file: /x, exists: false, min_size: 1}",
            ": exists: false goes with nothing else, so not with min_size",
        ),
        ("{file: /x, newest: true}", ": newest: true needs a pattern, for example /var/backups/*.tar.gz"),
        ("{file: /x, min_age: 2h, max_age: 1h}", ": min_age must be less than max_age"),
        ("{file: /x, min_size: 2, max_size: 1}", ": min_size must not be greater than max_size"),
        ("{filesystem: var}", f".filesystem: {PATH}"),
        ("{filesystem: /, min_free: ten}", f".min_free: {SIZE}"),
        ("{filesystem: /, min_free: 110%}", f".min_free: {SHARE}"),
        ("{filesystem: /, min_free: 0%}", f".min_free: {SHARE}"),
        ("{filesystem: /, min_free_inodes: 5GiB}", f".min_free_inodes: {SHARE}"),
        ("{command: []}", ".command: must not be empty"),
        ("{command: ls -l}", ".command: must be a list, for example [ls, -l]"),
        ("{command: ['']}", ": the first word of command is the program; it must not be empty"),
        ('{command: [ls, "a\\0b"]}', ".command[1]: must not contain a NUL character"),
        ("{command: [ls], cwd: here}", f".cwd: {PATH}"),
        (
            "{command: [ls], env: {'A=B': x}}",
            ".env.A=B: the name of an environment variable is not empty and has no '='",
        ),
        (
            "{command: [ls], expect: {exit: []}}",
            ".expect.exit: must not be empty",
        ),
        (
            "{command: [ls], expect: {exit: 256}}",
            ".expect.exit[0]: must be at most 255",
        ),
        (
            "{command: [ls], nagios: true, expect: {exit: 1}}",
            ": nagios: true says what exit codes mean; leave expect.exit out",
        ),
    ],
)
def test_a_mistake_in_a_probe(tmp_path: Path, probe: str, mistake: str) -> None:
    found = mistakes(tmp_path, f"services: {{a: {{probes: [{probe}]}}}}")

    assert found == [f"services.a.probes[0]{mistake}"]


def test_an_expected_output_must_be_a_pattern(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "services: {a: {probes: [{command: [ls], expect: {output: '('}}]}}")

    assert len(found) == 1
    assert found[0].startswith("services.a.probes[0].expect.output: '(' is not a regular expression of RE2")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("0", 0),
        ("500", 500),
        ("500kB", 500_000),
        ("10MiB", 10 * 2**20),
        ("1.5G", 1_500_000_000),
        ("2 TiB", 2**41),
    ],
)
def test_sizes_are_read_with_their_units(tmp_path: Path, written: str, read: int) -> None:
    probe = (
        load(tmp_path, f"services: {{a: {{probes: [{{file: /x, max_size: {written}}}]}}}}")
        .services["a"]
        .probes[0]
    )

    assert isinstance(probe, FileProbe)
    assert probe.max_size == read


@pytest.mark.parametrize(
    ("written", "read"), [("10%", 0.1), ("100%", 1.0), ("12.5 %", 0.125), ("5GiB", 5 * 2**30), ("4096", 4096)]
)
def test_free_space_is_a_share_or_a_size(tmp_path: Path, written: str, read: float) -> None:
    text = f"services: {{a: {{probes: [{{filesystem: /, min_free: {written}}}]}}}}"
    probe = load(tmp_path, text).services["a"].probes[0]

    assert isinstance(probe, FilesystemProbe)
    assert probe.min_free == read
    assert isinstance(probe.min_free, type(read))
