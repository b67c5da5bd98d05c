"""The application over a whole core; see the folder above for its parts."""

from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from remediator.config import Role
from remediator.web import create_app
from remediator.web.access import Holder

SECRETS = {role: f"{role}-" + "s" * 16 for role in Role}


@pytest.fixture
def client_of() -> Callable[[Any], FlaskClient]:
    """Return a maker of clients that talk to a world's application from this machine."""

    def make(world: Any) -> FlaskClient:
        client = create_app(world.surroundings).test_client()
        client.environ_base["HTTP_HOST"] = "127.0.0.1:3001"
        return client

    return make


@pytest.fixture
def idle_world(make_world: Callable[..., Any]) -> Any:
    """Return a world whose engine does not run: what is stored stays as it is."""
    return make_world(start=False)


@pytest.fixture
def client(idle_world: Any, client_of: Callable[[Any], FlaskClient]) -> FlaskClient:
    return client_of(idle_world)


@pytest.fixture
def secrets() -> dict[Role, str]:
    return SECRETS


@pytest.fixture
def guarded(make_world: Callable[..., Any], client_of: Callable[[Any], FlaskClient]) -> FlaskClient:
    """Return a client of an application with one token per role; it presents none by itself."""
    holders = {secret: Holder(name=f"the {role}", role=role) for role, secret in SECRETS.items()}
    client = client_of(make_world(start=False, holders=holders))
    client.environ_base["HTTP_HOST"] = "monitor.example"
    return client
