"""Observes: probes services, decides once whether they are down, and exposes what it saw."""
