"""Fleet health: are VIPs answered, do nodes forward, why do packets die, is the telemetry itself whole?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards.panels import BAD, CALM, GOOD, WARN, number, rows, series, thresholds
from dashboards.source import Places

INCIDENT_LINK = "/d/tgw-incident?var-incident=${__value.raw}"
PROBE_LINK = "/d/tgw-probe?var-probe=${__value.raw}"


def build(places: Places) -> builders.Dashboard:
    """The dashboard."""
    return (
        builders.Dashboard("tgw: fleet health")
        .uid("tgw-fleet")
        .tags(["tgw"])
        .description("Probes, Trace Points and Drop Points of the whole region.")
        .refresh("10s")
        .time("now-15m", "now")
        .timezone("utc")
        .tooltip(1)  # type: ignore[arg-type]  # the crosshair is shared
        .with_row(builders.Row("Now"))
        .with_panel(
            number(
                "Probes answered",
                "Share of the probes sent in this range that were answered. The rest was refused, silent or not sent.",
                "SELECT countIf(outcome = 'answered') / count() AS answered FROM probes WHERE $__timeFilter_ms(ts)",
                "percentunit",
                thresholds((None, BAD), (0.99, WARN), (0.999, GOOD)),
                decimals=3,
            )
        )
        .with_panel(
            number(
                "Open incidents",
                "Incidents that are not closed, whenever they began.",
                "SELECT count() AS open FROM incidents FINAL WHERE state != 'closed'",
                "short",
                thresholds((None, GOOD), (1, BAD)),
            )
        )
        .with_panel(
            number(
                "Nodes passing probes",
                "Nodes with at least one Trace Point in this range.",
                "SELECT uniqExact(node) AS nodes FROM trace_points WHERE $__timeFilter_ms(ts)",
                "short",
                thresholds((None, CALM)),
            )
        )
        .with_panel(
            number(
                "Feeds alive",
                "Taps (one per worker or prober) whose writer was alive when the collector last looked.",
                """
                SELECT countIf(alive) / count() AS alive FROM (
                    SELECT node, worker, argMax(alive, ts) AS alive FROM feeds
                    WHERE $__timeFilter_ms(ts) GROUP BY node, worker)
                """,
                "percentunit",
                thresholds((None, BAD), (0.95, WARN), (1, GOOD)),
                decimals=1,
            )
        )
        .with_panel(
            number(
                "Records lost",
                "Records that the collector knows to be lost in this range (full tap, torn spool). Never guessed.",
                "SELECT sum(count) AS lost FROM losses WHERE $__timeFilter_ms(ts)",
                "short",
                thresholds((None, GOOD), (1, WARN)),
            )
        )
        .with_panel(
            number(
                "Round trip, 99th percentile",
                "Of answered probes, from the SYN to the SYN-ACK at the prober.",
                """
                SELECT quantile(0.99)(rtt_ns) / 1e9 AS rtt FROM probes
                WHERE $__timeFilter_ms(ts) AND outcome = 'answered'
                """,
                "s",
                thresholds((None, GOOD), (0.05, WARN), (0.5, BAD)),
            )
        )
        .with_row(builders.Row("Probes"))
        .with_panel(
            series(
                "Probes by outcome",
                "Probes sent per interval, by what came back.",
                """
                SELECT $__timeInterval(second) AS time, outcome, sum(probes) AS value FROM probes_1s
                WHERE $__timeFilter(second) GROUP BY time, outcome ORDER BY time
                """,
                "short",
                stacked=True,
            )
        )
        .with_panel(
            series(
                "Probes not answered, by home cluster of the VIP",
                "Share of each cluster's probes that were not answered.",
                """
                SELECT $__timeInterval(second) AS time, v.home AS cluster,
                sumIf(probes, outcome != 'answered') / sum(probes) AS value
                FROM probes_1s AS p INNER JOIN vips AS v ON v.id = p.vip_id
                WHERE $__timeFilter(second) GROUP BY time, cluster ORDER BY time
                """,
                "percentunit",
            )
        )
        .with_row(builders.Row("Nodes"))
        .with_panel(
            series(
                "Trace Points by node",
                "Coloured packets that passed each node, per interval. A collapse while probes go silent is a crash.",
                """
                SELECT $__timeInterval(second) AS time, node, sum(points) AS value FROM trace_points_1s
                WHERE $__timeFilter(second) GROUP BY time, node ORDER BY time
                """,
                "short",
            )
        )
        .with_panel(
            series(
                "Drop Points by node and reason",
                "Packets that died, per interval. A surge at one node is jitter.",
                """
                SELECT $__timeInterval(second) AS time, concat(node, ' ', reason) AS what, sum(points) AS value
                FROM drop_points_1s WHERE $__timeFilter(second) GROUP BY time, what ORDER BY time
                """,
                "short",
                stacked=True,
            )
        )
        .with_panel(
            series(
                "Residence time by node, 99th percentile",
                "From a coloured packet's arrival at the node to its departure.",
                """
                SELECT $__timeInterval(second) AS time, node,
                quantilesTDigestMerge(0.5, 0.99)(residence_ns)[2] / 1e9 AS value
                FROM trace_points_1s WHERE $__timeFilter(second) GROUP BY time, node ORDER BY time
                """,
                "s",
            )
        )
        .with_panel(
            series(
                "Round trip by prober, median",
                "Of answered probes.",
                """
                SELECT $__timeInterval(second) AS time, prober,
                quantilesTDigestMerge(0.5, 0.99)(rtt_ns)[1] / 1e9 AS value
                FROM probes_1s WHERE $__timeFilter(second) AND outcome = 'answered'
                GROUP BY time, prober ORDER BY time
                """,
                "s",
            )
        )
        .with_row(builders.Row("Incidents and telemetry"))
        .with_panel(
            rows(
                "Incidents",
                "Every incident that was open at some time in this range.",
                """
                SELECT id, kind, subject, state, opened, closed AS ended, summary
                FROM incidents FINAL
                WHERE opened <= $__toTime_ms AND (closed IS NULL OR closed >= $__fromTime_ms)
                ORDER BY opened DESC
                """,
                links={"id": INCIDENT_LINK},
            )
        )
        .with_panel(
            rows(
                "Latest probes not answered",
                "The newest 50, with a link to their journeys.",
                """
                SELECT toString(probe_id) AS probe, ts, prober, v.name AS vip, outcome, src_port
                FROM probes AS p LEFT JOIN vips AS v ON v.id = p.vip_id
                WHERE $__timeFilter_ms(ts) AND outcome != 'answered' ORDER BY ts DESC LIMIT 50
                """,
                width=12,
                links={"probe": PROBE_LINK},
            )
        )
        .with_panel(
            rows(
                "Feeds",
                "Each tap as the collector last saw it. Heartbeat age is at that moment.",
                """
                SELECT node, worker, argMax(role, ts) AS kind, argMax(alive, ts) AS is_alive,
                argMax(dateDiff('millisecond', heartbeat, ts), ts) / 1000 AS heartbeat_age,
                argMax(write_cursor, ts) AS written, argMax(shipped, ts) AS in_warehouse,
                argMax(lost, ts) AS lost_in_tap, argMax(suppressed, ts) AS not_sampled
                FROM feeds WHERE $__timeFilter_ms(ts) GROUP BY node, worker ORDER BY is_alive, node, worker
                """,
                width=12,
                units={"heartbeat_age": "s"},
            )
        )
    )
