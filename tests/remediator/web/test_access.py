"""Who may do what."""

from base64 import b64encode
from functools import reduce
from itertools import product
from typing import Any

import pytest

from remediator.config import Role

REQUESTS = {
    "alerts": ("POST", "/api/monitoring/alerts"),
    "read": ("GET", "/api/monitoring/health"),
    "operate": ("POST", "/api/monitoring/resume"),
    "ingest": ("POST", "/api/monitoring/errors"),
}
MAY = {
    Role.ALERTMANAGER: {"alerts"},
    Role.INGEST: {"ingest"},
    Role.VIEWER: {"read"},
    Role.OPERATOR: {"alerts", "read", "operate", "ingest"},
}
EVERY_PATH = [
    ("POST", "/api/monitoring/alerts"),
    ("GET", "/api/monitoring/health"),
    ("GET", "/api/monitoring/errors"),
    ("GET", "/api/monitoring/errors/SE_00000000"),
    ("GET", "/api/monitoring/runs"),
    ("GET", "/api/monitoring/runs/R_000000000000"),
    ("GET", "/api/monitoring/decisions"),
    ("GET", "/api/monitoring/pauses"),
    ("GET", "/api/monitoring/heartbeats"),
    ("POST", "/api/monitoring/heartbeats/nightly"),
    ("POST", "/api/monitoring/heartbeats/nightly/start"),
    ("POST", "/api/monitoring/errors"),
    ("POST", "/api/1/envelope/"),
    ("POST", "/api/1/store/"),
    ("POST", "/shop/api/1/envelope/"),
    ("POST", "/shop/api/1/store/"),
    ("POST", "/api/monitoring/recover"),
    ("POST", "/api/monitoring/errors/SE_00000000/approve"),
    ("POST", "/api/monitoring/errors/SE_00000000/reject"),
    ("POST", "/api/monitoring/pause"),
    ("POST", "/api/monitoring/resume"),
]
OPEN = {"/", "/metrics", "/healthz", "/readyz"}


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def basic(secret: str, user: str = "anyone") -> dict[str, str]:
    return {"Authorization": "Basic " + b64encode(f"{user}:{secret}".encode()).decode()}


@pytest.mark.parametrize(("role", "what"), list(product(Role, REQUESTS)))
@pytest.mark.parametrize("scheme", [bearer, basic])
def test_a_role_opens_what_it_is_for_and_nothing_else(
    guarded: Any, secrets: Any, role: Role, what: str, scheme: Any
) -> None:
    method, path = REQUESTS[what]
    answer = guarded.open(
        path, method=method, headers=scheme(secrets[role]), json={} if method == "POST" else None
    )
    if what in MAY[role]:
        assert answer.status_code in (200, 400)  # 400: let in, but {} is no notification
    else:
        assert answer.status_code == 403
        assert role in answer.json["error"]


@pytest.mark.parametrize(("method", "path"), EVERY_PATH)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer(""),
        bearer("x" * 16),
        basic(""),
        basic("x" * 16),
        {"Authorization": "Bearer"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Digest x"},
        {"Authorization": "Bearer \xe4\xf6"},
        {"Cookie": "token=x"},
    ],
)
def test_without_the_right_token_every_path_is_closed(
    guarded: Any, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = guarded.open(path, method=method, headers=headers)
    assert answer.status_code == 401
    assert "Bearer" in answer.json["error"]
    assert answer.headers["WWW-Authenticate"]


def test_every_path_is_in_the_table_above(guarded: Any) -> None:
    rules = [rule for rule in guarded.application.url_map.iter_rules() if rule.endpoint != "static"]
    filled = {
        "<error_id>": "SE_00000000",
        "<run_id>": "R_000000000000",
        "<name>": "nightly",
        "<word>": "start",
        "<service>": "shop",
        "<project>": "1",
    }
    guarded_ones = {
        reduce(lambda path, part: path.replace(*part), filled.items(), str(rule)) for rule in rules
    }
    assert guarded_ones == {path for _, path in EVERY_PATH} | OPEN


@pytest.mark.parametrize("path", sorted(OPEN - {"/healthz"}))
def test_what_machines_ask_is_open(guarded: Any, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_a_token_in_the_address_opens_nothing(guarded: Any, secrets: Any) -> None:
    secret = secrets[Role.OPERATOR]
    for name in ("token", "access_token", "key"):
        assert guarded.get(f"/api/monitoring/health?{name}={secret}").status_code == 401


def test_with_a_bearer_token_the_origin_does_not_matter(guarded: Any, secrets: Any) -> None:
    headers = {**bearer(secrets[Role.OPERATOR]), "Origin": "https://dashboards.example"}
    assert guarded.post("/api/monitoring/resume", headers=headers).status_code == 200


@pytest.mark.parametrize(("origin", "status"), [("https://evil.example", 403), ("http://localhost", 200)])
def test_a_password_that_a_browser_remembers_opens_nothing_for_pages_of_other_sites(
    guarded: Any, secrets: Any, origin: str, status: int
) -> None:
    secret = secrets[Role.OPERATOR]
    answer = guarded.post("/api/monitoring/resume", auth=("operator", secret), headers={"Origin": origin})
    assert answer.status_code == status


@pytest.mark.parametrize(
    "host", ["127.0.0.1:3001", "127.0.0.1", "localhost:3001", "localhost", "[::1]:3001", "[::1]"]
)
def test_without_tokens_this_machines_names_are_served(client: Any, host: str) -> None:
    assert client.get("/api/monitoring/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(("method", "path"), EVERY_PATH)
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:3001", "127.0.0.1.evil.example", "localhost.evil.example:80", "192.0.2.1"],
)
def test_without_tokens_a_foreign_host_is_refused(client: Any, method: str, path: str, host: str) -> None:
    """A page whose name was made to point here (DNS rebinding) reads and changes nothing."""
    assert client.open(path, method=method, headers={"Host": host}).status_code == 403


@pytest.mark.parametrize(("method", "path"), [one for one in EVERY_PATH if one[0] == "POST"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:3001"])
def test_without_tokens_web_pages_change_nothing(client: Any, method: str, path: str, origin: str) -> None:
    assert client.open(path, method=method, json={}, headers={"Origin": origin}).status_code == 403


def test_what_a_person_did_is_told_by_the_name_of_the_token(guarded: Any, secrets: Any) -> None:
    answer = guarded.post(
        "/api/monitoring/pause", json={"reason": "release"}, headers=bearer(secrets[Role.OPERATOR])
    )
    assert (answer.status_code, answer.json["owner"]) == (201, "the operator")
