"""docs/exporter.md says what is so."""

import re
from pathlib import Path

import bcrypt
import pytest
import yaml

from exporter.app import Exporter, make_app
from exporter.config import WatchConfig
from exporter.discovered import TARGETS_LIMIT, Failure, Skip
from exporter.loading import load_config
from exporter.webconfig import WebFile

TEXT = (Path(__file__).parents[2] / "docs" / "exporter.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("key", ["services", "discovery"])
def test_the_examples_of_the_configuration_are_valid(tmp_path: Path, key: str) -> None:
    [example] = [text for text in EXAMPLES if text.startswith(f"{key}:")]
    file = tmp_path / "soulfra.yml"
    file.write_text(example)

    assert getattr(load_config(file, WatchConfig), key)


def test_the_example_of_the_web_configuration_is_valid() -> None:
    [example] = [text for text in EXAMPLES if text.startswith("tls_server_config:")]
    data = yaml.safe_load(example)
    data["basic_auth_users"] = dict.fromkeys(
        data["basic_auth_users"], bcrypt.hashpw(b"x", bcrypt.gensalt(4)).decode()
    )

    tls = WebFile.model_validate(data).tls_server_config

    assert tls is not None
    assert tls.demands_certificate


async def test_every_endpoint_is_documented(tmp_path: Path) -> None:
    exporter = Exporter(tmp_path / "soulfra.yml", WatchConfig(), "127.0.0.1:1")
    routes = {
        (route.method, route.resource.canonical)
        for route in make_app(exporter).router.routes()
        if route.resource is not None and route.method != "HEAD"
    }

    documented = set(re.findall(r"^\| `(GET|POST) (/[\w/-]*)", TEXT, re.MULTILINE))

    assert documented == routes


def test_every_reason_of_discovery_is_documented() -> None:
    for reason in (*Failure, *Skip):
        assert f"`{reason}`" in TEXT
    assert f"{TARGETS_LIMIT:,} targets" in TEXT
