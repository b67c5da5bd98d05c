"""Each sub-command pays for its own imports only."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from remediator.cli import COMMANDS, main
from soulfra_monitor import __version__


def imported_by(*arguments: str) -> set[str]:
    """Return what a run of the command imports."""
    program = (
        "import sys\n"
        "from remediator.cli import main\n"
        f"try: main({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_imports_no_part() -> None:
    assert not imported_by("--help") & {"flask", "pydantic", "yaml", "urllib3", "aiohttp", "waitress"}


def test_the_exporter_imports_nothing_of_the_remediator_but_the_command() -> None:
    found = imported_by("exporter", "--help")

    assert not found & {"flask", "waitress", "jinja2", "sqlite3", "remediator.config", "remediator.engine"}


def test_client_commands_import_neither_server_nor_configuration() -> None:
    assert not imported_by("errors", "--url", "http://127.0.0.1:1") & {
        "flask",
        "pydantic",
        "waitress",
        "psutil",
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_and_has_help(name: str) -> None:
    done = CliRunner().invoke(main, [name, "--help"], prog_name="soulfra")

    assert done.exit_code == 0
    assert f"soulfra {name}" in done.stdout


def test_the_version_is_the_package_s() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "remediator.cli", "--version"], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == f"soulfra, version {__version__}"


def test_an_http_probe_without_patterns_loads_no_library_for_them() -> None:
    program = (
        "import sys, exporter.app, exporter.probes.http, exporter.probes.tcp\n"
        "heavy = {'re2', 'bcrypt', 'dns', 'exporter.translation', 'exporter.probes.steps'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
