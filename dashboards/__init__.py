"""Grafana dashboards as code: built into committed JSON, provisioned from files or published through Grafana's API."""
