"""Masks passwords that programs take by short options, which mean something else to other programs."""

import re

from soulfra_monitor.redaction.patterns import Edit, Pattern, Places, replaced
from soulfra_monitor.redaction.randomness import looks_like_a_password
from soulfra_monitor.redaction.shapes import MASK

_COMMAND = Pattern(
    r"(?P<end>[\n|])"
    r"|(?<![\w.-])(?:(?P<tool>docker|podman|helm|az|oc|skopeo|buildah)"
    r"|(?P<command>login|mysql\w{0,10}|mariadb\w{0,10}"
    r"|sshpass|redis-cli|psql|pg_\w{4,12}|ipmitool|(?:un)?rar|openssl"
    r"|mongo\w{0,10}|sqlcmd|bcp|ldap\w{1,10}|plink|pscp|cqlsh|mosquitto_\w{3}|zip|unzip|7z))"
    r"(?![\w.])"
    r"|(?<=[\s\"'])-(?P<option>pw(?=[\s\"'\\])|hp|[pPawWk])"
    r"(?P<apart>[ \t]{1,64}+(?!-)|\\{0,16}[\"'],\s{0,64}+[bu]?(?=\\{0,16}[\"'](?!-)))?"
    r"(?:\\{0,16}(?P<quote>[\"']))?(?!\*\*\*)"
)
"""The parts of command lines, and of lists of arguments, that say whether a value is a password."""

_COMMANDS = (
    "mysql", "mariadb", "sshpass", "redis-cli", "login", "mongo", "sqlcmd", "bcp", "ldap", "plink", "pscp",
    "cqlsh", "mosquitto", "zip", "7z", "psql", "pg_", "ipmitool", "rar", "openssl",
)  # fmt: skip

_OTHER_OPTIONS = {"rar": "hp"}

_DOUBTFUL = frozenset({"psql", "pg_", "openssl"})
"""Their option takes no password, or takes one not everywhere: it is known by what it looks like."""

_GLUED = frozenset({"mysql", "mariadb", "7z", "rar", "unrar"})
"""Their password follows the option at once; what stands apart from it is something else."""

_PASSWORD_OPTIONS = {
    "mysql": "p",
    "mariadb": "p",
    "sshpass": "p",
    "redis-cli": "a",
    "mongo": "p",
    "sqlcmd": "P",
    "bcp": "P",
    "ldap": "w",
    "plink": "pw",
    "pscp": "pw",
    "cqlsh": "p",
    "mosquitto": "P",
    "zip": "P",
    "unzip": "P",
    "7z": "p",
    "psql": "W",
    "pg_": "W",
    "ipmitool": "P",
    "rar": "p",
    "unrar": "p",
    "openssl": "k",
    "login": "p",
}
_QUOTED = {
    '"': Pattern(r"(?:[^\"\\\n]|\\(?![\"\\]))++"),
    "'": Pattern(r"(?:[^'\\\n]|\\(?!['\\]))++"),
}
_ARGUMENT = Pattern(r"(?:[^\s\"'\\]|\\(?![\"'\\])){1,512}")


def redact_commands(text: str, lowered: str) -> str:
    if not any([hint in lowered for hint in _COMMANDS]):  # noqa: C419 - a list is faster
        return text
    edits: list[Edit] = []
    at = 0
    for place in Places(text).of([hint for hint in _COMMANDS if hint in lowered]):
        if place >= at:
            at = _mask_line(text, text.rfind("\n", at, place) + 1 or at, edits)
    return replaced(text, edits) if edits else text


def _mask_line(text: str, at: int, edits: list[Edit]) -> int:
    """Mask the passwords of one line, and return where it ends."""
    option = command = ""
    has_tool = False
    while found := _COMMAND.search(text, at):
        at = found.end()
        if found["end"]:
            option, has_tool = "", False
            if found["end"] == "\n":
                return at
        elif found["tool"]:
            has_tool = True
        elif found["command"]:
            if found["command"] != "login" or has_tool:
                command = _family(found["command"])
                option = _PASSWORD_OPTIONS[command]
        elif option and found["option"] in (option, _OTHER_OPTIONS.get(command, option)):
            value = _password(text, found, command)
            if value is not None:
                edits.append((at, value.end(), MASK))
                at = value.end()
    return len(text)


def _password(text: str, found: re.Match[str], command: str) -> re.Match[str] | None:
    if found["apart"] and command in _GLUED:
        return None
    value = (_QUOTED[found["quote"]] if found["quote"] else _ARGUMENT).match(text, found.end())
    if value is not None and command in _DOUBTFUL and not looks_like_a_password(value[0]):
        return None
    return value


def _family(command: str) -> str:
    if command in _PASSWORD_OPTIONS:
        return command
    return next(name for name in _PASSWORD_OPTIONS if command.startswith(name))
