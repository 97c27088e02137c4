"""The table of single probes that were not answered, which leads on to their journeys; all dashboards have one."""

from __future__ import annotations

from grafana_foundation_sdk.builders import table

from dashboards import links
from dashboards.panels import OUTCOMES, Column, rows, when


def failures(
    title: str, whose: str = "", vips: str = "1", *, first: bool = False, limit: int = 50, width: int = 24
) -> table.Panel:
    """The newest (or the `first`) of the time range. `vips`: a condition on p.vip_id, in words `whose`."""
    return rows(
        title,
        f"The {'first' if first else 'newest'} {limit} of this time range{whose}; each leads to its journey.",
        f"""
        SELECT toString(probe_id) AS probe, ts, prober, toString(v.name) AS vip, outcome,
        toString(src_port) AS source_port
        FROM probes AS p LEFT JOIN vips AS v ON v.id = p.vip_id
        WHERE $__timeFilter_ms(ts) AND outcome != 'answered' AND {vips}
        ORDER BY ts {"" if first else "DESC "}LIMIT {limit}
        """,
        {
            "probe": links.probe(),
            "ts": when("sent", precise=True),
            "prober": Column(width=85),
            "vip": links.vip(),
            "outcome": Column(width=80, words=OUTCOMES),
            "source_port": Column(title="source port", unit="string"),
        },
        width=width,
        nothing="no unanswered probe is known in this time range",
    )
