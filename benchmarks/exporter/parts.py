"""Starts what is compared: nginx with the targets, our exporter, blackbox_exporter, Prometheus."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from benchmarks.harness import wait_until

INTERVAL = "5s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """The programs of one generation, to be measured together."""

    name: str
    prometheus: str
    blackbox: str

    def versions(self) -> str:
        """Return what the programs say they are."""
        return f"blackbox_exporter {_version(self.blackbox)}, Prometheus {_version(self.prometheus)}"


def _version(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return (done.stdout + done.stderr).split("version ", 1)[1].split(" ", 1)[0].rstrip(",")


@contextmanager
def running(command: list[str], folder: Path, name: str) -> Iterator[psutil.Process]:
    """Run a program for the time of the block; its output goes to a file of *folder*."""
    with (folder / f"{name}.log").open("ab") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield psutil.Process(child.pid)
    finally:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def answers(url: str, within: float = 30.0, **more: Any) -> None:
    """Wait until *url* answers with 200."""
    wait_until(url, lambda: requests.get(url, timeout=5, **more).ok, within)


@contextmanager
def deaf(port: int) -> Iterator[None]:
    """Let nobody connect to *port* for the time of the block: the listener's queue is full, and stays so."""
    with ExitStack() as stack:
        stack.enter_context(socket.create_server(("127.0.0.1", port), backlog=0))
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield


def certificate(folder: Path) -> tuple[Path, Path]:
    """Make a self-signed P-256 certificate for 127.0.0.1 and localhost."""
    key, pem = folder / "key.pem", folder / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "30"]
    files = ["-keyout", str(key), "-out", str(pem)]
    subprocess.run([*made, *names, *files], check=True, capture_output=True)
    return key, pem


@contextmanager
def nginx(folder: Path, port: int, tls_port: int) -> Iterator[Path]:
    """Serve the targets plain and over TLS; yields the certificate's file."""
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    key, pem = certificate(folder)
    file = folder / "nginx.conf"
    file.write_text(
        f"""daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 8192; }}
http {{
  access_log off; default_type text/plain; ssl_session_tickets off; ssl_session_cache off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port} backlog=4096; listen 127.0.0.1:{tls_port} ssl backlog=4096;
    ssl_certificate {pem}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3;
    location = /count {{ stub_status; }}
    location / {{ return 200 "status: ok\\n"; }}
  }}
}}
""",
        encoding="utf-8",
    )
    with running(
        [program, "-c", str(file), "-p", str(folder), "-e", str(folder / "nginx.err")], folder, "nginx"
    ):
        answers(f"http://127.0.0.1:{port}/")
        yield pem


def requests_of(port: int) -> int:
    """Return how many requests nginx has answered."""
    lines = requests.get(f"http://127.0.0.1:{port}/count", timeout=5).text.splitlines()
    return int(lines[2].split()[2])


@contextmanager
def exporter(
    folder: Path, port: int, urls: list[str], *, ca_file: Path | None = None, timeout: str = "2s"
) -> Iterator[psutil.Process]:
    """Run our exporter over *urls*, one service each, every 5 seconds."""
    tls = {"tls": {"ca_file": str(ca_file)}} if ca_file else {}
    config = {
        "exporter": {"interval": INTERVAL, "timeout": timeout, "fast_path": False},
        "services": {
            f"target-{number:05}": {"probes": [{"http": url, **tls}]} for number, url in enumerate(urls)
        },
    }
    file = folder / "soulfra.yml"
    file.write_text(json.dumps(config), encoding="utf-8")
    command = [sys.executable, "-m", "remediator.cli", "exporter", "--config", str(file)]
    with running([*command, "--listen", f"127.0.0.1:{port}"], folder, "exporter") as process:
        answers(f"http://127.0.0.1:{port}/-/healthy", within=60)
        yield process


@contextmanager
def blackbox(
    generation: Generation, folder: Path, port: int, *, ca_file: Path | None = None
) -> Iterator[psutil.Process]:
    """Run blackbox_exporter with one HTTP module."""
    http: dict[str, Any] = {"preferred_ip_protocol": "ip4"}
    if ca_file is not None:
        http["tls_config"] = {"ca_file": str(ca_file)}
    file = folder / "blackbox.yml"
    module = {"prober": "http", "timeout": "2s", "http": http}
    file.write_text(yaml.safe_dump({"modules": {"http_2xx": module}}), encoding="utf-8")
    command = [generation.blackbox, f"--config.file={file}", f"--web.listen-address=127.0.0.1:{port}"]
    with running([*command, "--log.level=error"], folder, "blackbox") as process:
        answers(f"http://127.0.0.1:{port}/-/healthy")
        yield process


def scrape_ours(port: int) -> dict[str, Any]:
    """Return the scrape of everything our exporter saw, as often as it looks."""
    return {
        "job_name": "soulfra",
        "scrape_interval": INTERVAL,
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
    }


def scrape_blackbox(port: int, urls: list[str]) -> dict[str, Any]:
    """Return the scrapes that make blackbox_exporter look at every target."""
    return {
        "job_name": "blackbox",
        "metrics_path": "/probe",
        "params": {"module": ["http_2xx"]},
        "scrape_interval": INTERVAL,
        "scrape_timeout": "4s",
        "static_configs": [{"targets": urls}],
        "relabel_configs": [
            {"source_labels": ["__address__"], "target_label": "__param_target"},
            {"source_labels": ["__param_target"], "target_label": "instance"},
            {"target_label": "__address__", "replacement": f"127.0.0.1:{port}"},
        ],
    }


@contextmanager
def prometheus(
    generation: Generation, folder: Path, port: int, scrape: dict[str, Any]
) -> Iterator[psutil.Process]:
    """Run Prometheus with one scrape configuration and an empty database."""
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump({"scrape_configs": [scrape]}), encoding="utf-8")
    data = folder / f"tsdb-{time.monotonic_ns()}"
    command = [generation.prometheus, f"--config.file={file}", f"--storage.tsdb.path={data}"]
    with running(
        [*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"], folder, "prometheus"
    ) as process:
        answers(f"http://127.0.0.1:{port}/-/ready", within=60)
        yield process
    shutil.rmtree(data, ignore_errors=True)


def query(port: int, expression: str) -> list[dict[str, Any]]:
    """Ask Prometheus an instant query."""
    answer = requests.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": expression}, timeout=30)
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found
