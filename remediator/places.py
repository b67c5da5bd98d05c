"""Where the files of a service are: its log, and the record of the process that was started for it."""

import os
from pathlib import Path

from exporter.config import OwnPath, Service

DATA = "{data}"


def expand(text: str, data_folder: Path) -> str:
    """Put the data folder where the configuration writes ``{data}``."""
    return text.replace(DATA, str(data_folder.absolute()))


def place(text: str, config_folder: Path, data_folder: Path) -> Path:
    """Return a path of the configuration; a relative one starts at the configuration's folder."""
    return config_folder.absolute() / expand(text, data_folder)


def entries_over(
    service: Service, path: str, config_folder: Path, data_folder: Path
) -> list[tuple[Path, OwnPath]]:
    """Return the declared paths that are *path* or contain it, outermost first. No file is touched.

    Empty as well when *path* is not the plain name of one place: relative, or with ``..`` or a zero in it.
    """
    wanted = Path(path)
    if not wanted.is_absolute() or "\0" in path or os.path.normpath(path) != path:
        return []
    own = [(place(entry.path, config_folder, data_folder), entry) for entry in service.paths]
    over = [
        (where, entry)
        for where, entry in own
        if where == wanted or (entry.kind == "directory" and where in wanted.parents)
    ]
    return sorted(over, key=lambda item: len(item[0].parts))


def log_of(name: str, service: Service, config_folder: Path, data_folder: Path) -> Path:
    """Return the file that takes what the service prints."""
    if service.restart is not None and service.restart.log is not None:
        return place(service.restart.log, config_folder, data_folder)
    return data_folder.absolute() / "logs" / f"{name}.log"


def record_of(name: str, data_folder: Path) -> Path:
    """Return the file that says which process was started for the service."""
    return data_folder.absolute() / "run" / f"{name}.json"
