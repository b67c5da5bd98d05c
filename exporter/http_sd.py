"""All services in the format of Prometheus's ``http_sd_configs``, ready to be scraped from ``/probe``."""

import json
from collections.abc import Mapping

from exporter.config import Service


def http_sd_text(
    services: Mapping[str, Service], *, address: str, scheme: str, sources: Mapping[str, str]
) -> str:
    """Write one target group for each service, scraped at *address*.

    The labels say all that a scrape needs, so that no relabelling is necessary. *sources* names
    where the services come from that the configuration does not name itself.
    """
    groups = [
        {"targets": [address], "labels": _labels(name, service, scheme, sources.get(name, "config"))}
        for name, service in services.items()
    ]
    return json.dumps(groups)


def _labels(name: str, service: Service, scheme: str, source: str) -> dict[str, str]:
    kinds = dict.fromkeys(probe.kind for _, probe in service.all_probes())
    return {
        **service.labels,
        "instance": name,
        "__scheme__": scheme,
        "__metrics_path__": "/probe",
        "__param_target": name,
        "__meta_soulfra_target": name,
        "__meta_soulfra_host": service.host or "",
        # Between commas, as Prometheus writes lists, so that ",http," finds it.
        "__meta_soulfra_probes": "".join(f",{kind}" for kind in kinds) + ",",
        "__meta_soulfra_source": source,
    }
