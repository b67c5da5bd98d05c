"""The landing page: links, and the last result of every target."""

from collections.abc import Iterator
from html import escape
from urllib.parse import quote

from exporter.state import ServiceState, WorldState
from soulfra_monitor import __version__

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Soulfra exporter</title>
<style>body{font:15px system-ui,sans-serif;margin:2rem}td,th{padding:.2rem .8rem;text-align:left}</style>
</head><body>"""
_LINKS = ("/metrics", "/state", "/-/healthy", "/-/ready")


def landing_page(world: WorldState) -> str:
    """Render the page. Whatever comes from the configuration or from a service is escaped."""
    links = " &middot; ".join(f'<a href="{link}">{link}</a>' for link in _LINKS)
    blind = "<p><strong>Most targets fail at once: is it the exporter that is blind?</strong></p>"
    rows = "".join(_row(service) for service in world.services.values())
    return (
        f"{_HEAD}<h1>Soulfra exporter {escape(__version__)}</h1><p>{links}</p>"
        f"{blind if world.blind else ''}"
        "<table><tr><th>Target</th><th>Status</th><th>Response</th><th>Probes</th></tr>"
        f"{rows}</table></body></html>\n"
    )


def _row(service: ServiceState) -> str:
    seconds = service.response_time
    cells = (
        f'<a href="/state?target={quote(service.target)}">{escape(service.target)}</a>',
        escape(service.verdict) + (" (slow)" if service.slow else ""),
        "" if seconds is None else f"{seconds * 1000:.0f} ms",
        "<br>".join(_results(service)),
    )
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _results(service: ServiceState) -> Iterator[str]:
    for name, probe in service.probes.items():
        last = probe.last
        text = "not run yet" if last is None else last.reason or "ok"
        detail = last.outcome.detail if last and last.outcome.detail else ""
        yield escape(f"{name}: {text}" + (f" ({detail})" if detail else ""))
