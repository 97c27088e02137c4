"""Where a person looks at an incident: its Grafana dashboard, with the time range that it is about."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from analyzer.incident import Incident

DASHBOARD = "tgw-incident"
# How much is shown before it opened and after it closed [ms].
AROUND_MS = 600_000


def board(grafana: str, incident: Incident) -> str:
    """The URL. `grafana`: Grafana's, as people reach it; an incident that is open is shown until now."""
    until = "now" if incident.closed_ns == 0 else str(incident.closed_ns // 1_000_000 + AROUND_MS)
    query = {
        "var-incident": incident.id,
        "from": str(incident.opened_ns // 1_000_000 - AROUND_MS),
        "to": until,
    }
    return f"{grafana.rstrip('/')}/d/{DASHBOARD}?{urlencode(query, quote_via=quote)}"
