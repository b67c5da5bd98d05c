"""Reports of jobs and loops: that they started, worked, or failed."""

import re
from http import HTTPStatus
from typing import Any

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from remediator import report
from remediator.heartbeats import pulse_of
from remediator.store import BeatKind, Heartbeat
from remediator.web.access import denied
from remediator.web.context import gate, surroundings

blueprint = Blueprint("heartbeats", __name__, url_prefix="/api/monitoring/heartbeats")

_WORDS = {"start": BeatKind.START, "success": BeatKind.SUCCESS, "fail": BeatKind.FAILURE}
_EXIT_CODE = re.compile(r"[0-9]{1,3}")
_HIGHEST_EXIT_CODE = 255


@blueprint.get("")
def heartbeats() -> ResponseReturnValue:
    """List every configured job with what is known of it."""
    gate().check("read")
    names = surroundings().loaded.config.heartbeats
    found = [_view(beat) for beat in surroundings().tools.store.heartbeats() if beat.name in names]
    return jsonify(heartbeats=found)


@blueprint.post("/<name>")
def succeeded(name: str) -> ResponseReturnValue:
    """Note that a job has worked."""
    return _beat(name, BeatKind.SUCCESS)


@blueprint.post("/<name>/<word>")
def said(name: str, word: str) -> ResponseReturnValue:
    """Note that a job started, worked or failed, or the exit code it ended with (0 means success)."""
    if word in _WORDS:
        return _beat(name, _WORDS[word])
    code = int(word) if _EXIT_CODE.fullmatch(word) else _HIGHEST_EXIT_CODE + 1
    if code <= _HIGHEST_EXIT_CODE:
        return _beat(name, BeatKind.FAILURE if code else BeatKind.SUCCESS, code)
    known = ", ".join(_WORDS)
    raise denied(HTTPStatus.NOT_FOUND, f"{word[:40]!r} is neither {known} nor an exit code from 0 to 255")


def _beat(name: str, kind: BeatKind, exit_code: int | None = None) -> ResponseReturnValue:
    gate().check("ingest")
    around = surroundings()
    if name not in around.loaded.config.heartbeats:
        message = f"there is no heartbeat {name[:80]!r}; write it into heartbeats, with its period and grace"
        raise denied(HTTPStatus.NOT_FOUND, message)
    return jsonify(_view(around.tools.store.beat(name, kind, around.tools.clock(), exit_code)))


def _view(beat: Heartbeat) -> dict[str, Any]:
    return {
        "name": beat.name,
        "status": pulse_of(beat, surroundings().tools.clock()),
        "period": report.milliseconds(beat.period),
        "grace": report.milliseconds(beat.grace),
        "expectedSince": report.iso(beat.since),
        "lastStart": report.iso(beat.last_start),
        "lastSuccess": report.iso(beat.last_success),
        "lastFailure": report.iso(beat.last_failure),
        "lastExitCode": beat.last_exit_code,
    }
