"""The HTTP probe against a real nginx: TLS, client certificates, gzip, redirects, basic auth."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.kinds.http import HttpProbe
from exporter.observation import Outcome, Reason
from exporter.probes import http
from exporter.probes.context import Context

SECRET = "hun" + "ter2"  # built from pieces
CONFIG = """
user root; daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder}; default_type application/json;
  gzip on; gzip_types application/json; gzip_min_length 1; gzip_proxied any;
  server {{
    listen 127.0.0.1:{plain};
    location = /health {{ return 200 '{{"status": "healthy", "padding": "xxxxxxxxxxxxxxxx"}}'; }}
    location = /moved {{ return 301 https://localhost:{tls}/health; }}
    location = /private {{
      auth_basic "private"; auth_basic_user_file {folder}/users; root {folder}; try_files /users =404;
    }}
    location = /empty {{ return 204; }}
  }}
  server {{
    listen 127.0.0.1:{tls} ssl; ssl_certificate {pem}; ssl_certificate_key {key};
    ssl_client_certificate {pem}; ssl_verify_client optional;
    location = /health {{ return 200 '{{"status": "healthy", "client": "$ssl_client_verify"}}'; }}
  }}
}}
"""


@pytest.fixture
def nginx(
    binary: Callable[[str], str],
    launch: Callable[..., "subprocess.Popen[bytes]"],
    free_port: Callable[[], int],
    tmp_path: Path,
    make_certificate: Callable[[int], tuple[Path, Path]],
) -> dict[str, Any]:
    program = binary("nginx")
    key, pem = make_certificate(30)
    places: dict[str, Any] = {"plain": free_port(), "tls": free_port(), "pem": pem, "key": key}
    (tmp_path / "users").write_text(f"me:{{PLAIN}}{SECRET}\n")
    file = tmp_path / "nginx.conf"
    file.write_text(CONFIG.format(folder=tmp_path, **places))
    process = launch(program, "-e", str(tmp_path / "error.log"), "-c", str(file), "-p", str(tmp_path))
    end = time.monotonic() + 15
    while not (tmp_path / "nginx.pid").exists():  # it listens before it writes that
        assert process.poll() is None, (tmp_path / "error.log").read_text()
        assert time.monotonic() < end, "nginx does not start"
        time.sleep(0.01)
    return places


async def ask(context: Context, address: str, **more: Any) -> Outcome:
    return await http.probe(HttpProbe.model_validate({"http": address, **more}), context)


async def test_nginx_is_understood(nginx: dict[str, Any], context: Context) -> None:
    plain, secure = f"http://127.0.0.1:{nginx['plain']}", f"https://localhost:{nginx['tls']}"
    ca = {"ca_file": str(nginx["pem"])}
    shown = {**ca, "cert_file": str(nginx["pem"]), "key_file": str(nginx["key"])}
    healthy = {"json": {"status": "healthy"}}
    me = {"username": "me", "password": SECRET}
    wanted: list[tuple[str, dict[str, Any], Reason | None]] = [
        (f"{plain}/health", {"expect": healthy}, None),
        (
            f"{plain}/health",
            {"expect": {**healthy, "headers": {"Content-Encoding": "gzip"}}, "compression": "gzip"},
            None,
        ),
        (f"{plain}/health", {"method": "HEAD"}, None),
        (f"{plain}/health", {"method": "DELETE"}, None),
        (f"{plain}/empty", {}, None),
        (f"{plain}/nowhere", {}, Reason.STATUS),
        (f"{plain}/private", {}, Reason.STATUS),
        (f"{plain}/private", {"basic_auth": me}, None),
        (f"{plain}/moved", {"redirects": 1, "tls": ca, "expect": {**healthy, "secure": True}}, None),
        (f"{plain}/moved", {"redirects": 1}, Reason.TLS_VERIFY),
        (f"{secure}/health", {"tls": ca, "expect": {"json": {"client": "NONE"}}}, None),
        (f"{secure}/health", {"tls": shown, "expect": {"json": {"client": "SUCCESS"}}}, None),
        (f"{secure}/health", {"tls": {**ca, "max_version": "1.2"}, "expect": healthy}, None),
        (f"http://127.0.0.1:{nginx['tls']}/health", {}, Reason.STATUS),
    ]
    for address, keys, reason in wanted:
        outcome = await ask(context, address, **keys)
        assert outcome.reason is reason, (address, keys, outcome.detail)
