"""One incident: what was seen, what was decided, what was done, and what the probes say since."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from dashboards.fleet import PROBE_LINK
from dashboards.panels import BAD, CALM, GOOD, WARN, number, rows, series, thresholds
from dashboards.source import REF, Places, text

# The part of the range that matters: a minute before it began until a minute after it ended.
_INCIDENT = text("incident")
_AROUND = """
{column} >= (SELECT min(opened) - INTERVAL 60 SECOND FROM incidents FINAL WHERE id = {incident})
AND {column} <= (SELECT max(coalesce(closed, now64(9))) + INTERVAL 60 SECOND
FROM incidents FINAL WHERE id = {incident})
"""
_VIPS = f"(SELECT arrayJoin(vips) FROM incidents FINAL WHERE id = {_INCIDENT})"
_NODES = f"(SELECT arrayJoin(named_nodes) FROM incidents FINAL WHERE id = {_INCIDENT})"


def around(column: str) -> str:
    """A condition on a time column: the incident and a minute on both sides."""
    return _AROUND.format(column=column, incident=_INCIDENT)


def build(places: Places) -> builders.Dashboard:
    """The dashboard."""
    return (
        builders.Dashboard("tgw: one incident")
        .uid("tgw-incident")
        .tags(["tgw"])
        .description(
            "Evidence, timeline and actions of the chosen incident; panels show it and a minute on both sides."
        )
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("utc")
        .tooltip(1)  # type: ignore[arg-type]
        .with_variable(
            builders.QueryVariable("incident")
            .label("Incident")
            .datasource(REF)
            .query("SELECT id FROM incidents FINAL ORDER BY opened DESC LIMIT 100")
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(models.VariableSort.DISABLED)
        )
        .with_row(builders.Row("What"))
        .with_panel(
            rows(
                "Incident",
                "What the analyzer says of it now.",
                f"""
                SELECT kind, subject, arrayStringConcat(named_nodes, ', ') AS nodes, state, severity, opened,
                closed AS ended, summary
                FROM incidents FINAL WHERE id = {_INCIDENT}
                """,
                height=4,
            )
        )
        .with_panel(
            number(
                "Open for",
                "From the opening to the close, or until now.",
                f"""
                SELECT dateDiff('millisecond', opened, coalesce(closed, now64(9))) / 1000 AS open_for
                FROM incidents FINAL WHERE id = {_INCIDENT}
                """,
                "s",
                thresholds((None, GOOD), (60, WARN), (300, BAD)),
            )
        )
        .with_panel(
            number(
                "Timeline spans",
                "From the first to the last thing that the analyzer noted of it.",
                f"""
                SELECT dateDiff('millisecond', min(ts), max(ts)) / 1000 AS spans FROM incident_events FINAL
                WHERE incident_id = {_INCIDENT}
                """,
                "s",
                thresholds((None, CALM)),
            )
        )
        .with_panel(
            number(
                "VIPs affected",
                "VIPs whose probes are evidence of it.",
                f"SELECT length(vips) AS vips FROM incidents FINAL WHERE id = {_INCIDENT}",
                "short",
                thresholds((None, CALM)),
            )
        )
        .with_row(builders.Row("What happened"))
        .with_panel(
            rows(
                "Timeline",
                "Everything the analyzer noted, oldest first.",
                f"""
                SELECT ts, kind, text FROM incident_events FINAL WHERE incident_id = {_INCIDENT}
                ORDER BY ts, seq
                """,
                width=14,
                height=10,
            )
        )
        .with_panel(
            rows(
                "Actions",
                "What was asked of the control plane, and what it answered; a refusal names its rail.",
                f"""
                SELECT ts, kind, cluster, state, detail FROM actions FINAL
                WHERE incident_id = {_INCIDENT} ORDER BY ts
                """,
                width=10,
                height=10,
            )
        )
        .with_row(builders.Row("What the probes saw"))
        .with_panel(
            series(
                "Probes of the affected VIPs, by outcome",
                "Per second.",
                f"""
                SELECT toStartOfSecond(ts) AS time, outcome, count() AS value FROM probes
                WHERE {around("ts")} AND vip_id IN {_VIPS} GROUP BY time, outcome ORDER BY time
                """,
                "short",
                stacked=True,
            )
        )
        .with_panel(
            series(
                "Trace Points of the named nodes",
                "Coloured packets that passed, per second.",
                f"""
                SELECT toStartOfSecond(ts) AS time, node, count() AS value FROM trace_points
                WHERE {around("ts")} AND node IN {_NODES} GROUP BY time, node ORDER BY time
                """,
                "short",
            )
        )
        .with_panel(
            series(
                "Drop Points around it",
                "Packets that died, per second, by node and reason, anywhere in the region.",
                f"""
                SELECT toStartOfSecond(ts) AS time, concat(node, ' ', reason) AS what, count() AS value FROM drop_points
                WHERE {around("ts")} GROUP BY time, what ORDER BY time
                """,
                "short",
                stacked=True,
            )
        )
        .with_panel(
            rows(
                "Probes that were not answered",
                "The first 100 of the affected VIPs, with a link to their journeys.",
                f"""
                SELECT toString(probe_id) AS probe, ts, prober, v.name AS vip, outcome, src_port
                FROM probes AS p LEFT JOIN vips AS v ON v.id = p.vip_id
                WHERE {around("ts")} AND vip_id IN {_VIPS} AND outcome != 'answered' ORDER BY ts LIMIT 100
                """,
                width=12,
                links={"probe": PROBE_LINK},
            )
        )
    )
