"""The journey of one probe: each hop in order, where it died, and what the prober saw."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards.panels import CALM, GOOD, WARN, number, rows, thresholds
from dashboards.source import Places, text

_PROBE = text("probe")
# Addresses of IPv4 are kept mapped into IPv6; people read them without the prefix.
_SHOWN = "replaceOne(toString({0}), '::ffff:', '')"


def build(places: Places) -> builders.Dashboard:
    """The dashboard."""
    return (
        builders.Dashboard("tgw: journey of a probe")
        .uid("tgw-probe")
        .tags(["tgw"])
        .description("Every Trace Point and Drop Point of one probe, hop by hop. The probe's number is decimal.")
        .time("now-1h", "now")
        .timezone("utc")
        .with_variable(builders.TextBoxVariable("probe").label("Probe").default_value("0"))
        .with_row(builders.Row("The probe"))
        .with_panel(
            rows(
                "What the prober saw",
                "One row, written when the probe closed.",
                f"""
                SELECT ts, prober, outcome, rtt_ns / 1e9 AS rtt, v.name AS vip,
                concat({_SHOWN.format("src_addr")}, ' port ', toString(src_port)) AS source,
                concat({_SHOWN.format("dst_addr")}, ' port ', toString(dst_port)) AS target, retransmits
                FROM probes AS p LEFT JOIN vips AS v ON v.id = p.vip_id WHERE probe_id = toUInt64OrZero({_PROBE})
                """,
                height=4,
                units={"rtt": "s"},
            )
        )
        .with_panel(
            number(
                "Hops passed",
                "Trace Points of the SYN and its SYN-ACK; a whole journey has 6.",
                f"""
                SELECT uniqExact(hop) AS hops FROM trace_points
                WHERE probe_id = toUInt64OrZero({_PROBE}) AND bitAnd(tcp_flags, 2) = 2
                """,
                "short",
                thresholds((None, WARN), (6, GOOD)),
            )
        )
        .with_panel(
            number(
                "Drop Points",
                "Where it died; none for a probe that was answered.",
                f"SELECT count() AS drops FROM drop_points WHERE probe_id = toUInt64OrZero({_PROBE})",
                "short",
                thresholds((None, GOOD), (1, WARN)),
            )
        )
        .with_panel(
            number(
                "Time inside nodes",
                "Sum of the residence times of the SYN and the SYN-ACK.",
                f"""
                SELECT sum(residence_ns) / 1e9 AS inside FROM trace_points
                WHERE probe_id = toUInt64OrZero({_PROBE}) AND bitAnd(tcp_flags, 2) = 2
                """,
                "s",
                thresholds((None, CALM)),
            )
        )
        .with_row(builders.Row("Hop by hop"))
        .with_panel(
            rows(
                "Journey",
                "In order of time. Offset is from the SYN's departure at the prober; the tunnel is the outer source "
                "as the packet came and the outer destination as it left.",
                f"""
                WITH (SELECT min(ts) FROM probes WHERE probe_id = toUInt64OrZero({_PROBE})) AS sent
                SELECT dateDiff('microsecond', sent, ts) / 1e6 AS offset, hop, node, worker,
                multiIf(bitAnd(tcp_flags, 4) = 4, 'RST', bitAnd(tcp_flags, 18) = 18, 'SYN-ACK', 'SYN') AS packet,
                if(reason = '', 'passed', concat('dropped: ', reason)) AS what, residence_ns / 1e9 AS residence,
                {_SHOWN.format("outer_src")} AS tunnel_from, {_SHOWN.format("outer_dst")} AS tunnel_to,
                s.name AS real_server
                FROM (
                    SELECT ts, hop, node, worker, tcp_flags, '' AS reason, residence_ns, outer_src, outer_dst, server_id
                    FROM trace_points WHERE probe_id = toUInt64OrZero({_PROBE})
                    UNION ALL
                    SELECT ts, hop, node, worker, tcp_flags, toString(reason), residence_ns, outer_src, outer_dst,
                    server_id
                    FROM drop_points WHERE probe_id = toUInt64OrZero({_PROBE})
                ) AS t LEFT JOIN servers AS s ON s.id = t.server_id
                ORDER BY ts
                """,
                height=12,
                units={"offset": "s", "residence": "s"},
            )
        )
    )
