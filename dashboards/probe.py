"""The journey of one probe: each hop in order, where it died, and what the prober saw."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import dashboard as models

from dashboards import links
from dashboards.failures import failures
from dashboards.panels import (
    BAD,
    CALM,
    GOOD,
    NEUTRAL,
    OF,
    OUTCOMES,
    WARN,
    Column,
    matching,
    number,
    rows,
    thresholds,
    when,
)
from dashboards.source import REF, Places, text

# 0 is "no probe"; the Drop Points of clients' packets have it too, so it is never looked for.
_PROBE = f"toUInt64OrZero({text('probe')})"
_IT = f"probe_id != 0 AND probe_id = {_PROBE}"
# Addresses of IPv4 are kept mapped into IPv6; people read them without the prefix.
_SHOWN = "replaceOne(toString({0}), '::ffff:', '')"
_NONE = "pick a probe above, or below"
# Hops of a journey there and back: EIP, CLB, vSwitch, twice.
HOPS = 6


def build(places: Places) -> builders.Dashboard:
    """The dashboard."""
    dashboard = (
        builders.Dashboard("tgw: journey of a probe")
        .uid(links.PROBE)
        .tags(["tgw"])
        .description("Every Trace Point and Drop Point of one probe, hop by hop. The probe's number is decimal.")
        .time("now-1h", "now")
        .timezone("utc")
        .with_variable(
            builders.QueryVariable("probe")
            .label("Probe")
            .description("The newest that were not answered, then the newest that were; a number can be typed in.")
            .datasource(REF)
            .query(PICKER)
            .refresh(models.VariableRefresh.ON_DASHBOARD_LOAD)
            .sort(models.VariableSort.DISABLED)
            .current(models.VariableOption(selected=True, text="pick a probe", value="0"))
        )
    )
    return (
        links.navigation(dashboard, places)
        .with_row(builders.Row("The probe"))
        .with_panel(
            number(
                "What became of it",
                "Answered, or the node that dropped it and why, or the last node that saw it.",
                VERDICT,
                "string",
                thresholds(),
                width=12,
                mappings=matching(("^answered", GOOD), ("^(no record|not closed)", NEUTRAL), (".", BAD)),
                nothing=_NONE,
            )
        )
        .with_panel(
            number(
                "Hops passed",
                f"Trace Points of the SYN and its SYN-ACK; a whole journey has {HOPS}.",
                f"""
                SELECT if({_PROBE} = 0, NULL, concat(toString(uniqExact(hop)), ' of {HOPS}')) AS hops FROM trace_points
                WHERE {_IT} AND bitAnd(tcp_flags, 2) = 2
                """,
                "string",
                mappings=OF,
                nothing=_NONE,
            )
        )
        .with_panel(
            number(
                "Drop Points",
                "Where it died; none for a probe that was answered.",
                f"SELECT if({_PROBE} = 0, NULL, count()) AS drops FROM drop_points WHERE {_IT}",
                "short",
                thresholds((0, CALM), (1, WARN)),
                nothing=_NONE,
            )
        )
        .with_panel(
            number(
                "Time inside nodes",
                "Sum of the residence times of the SYN and the SYN-ACK.",
                f"""
                SELECT if(count() = 0, NULL, sum(residence_ns) / 1e9) AS inside FROM trace_points
                WHERE {_IT} AND bitAnd(tcp_flags, 2) = 2
                """,
                "s",
                thresholds((0, CALM)),
                nothing=_NONE,
            )
        )
        .with_panel(seen())
        .with_row(builders.Row("Hop by hop"))
        .with_panel(journey())
        .with_row(builders.Row("Other probes"))
        .with_panel(failures("Latest probes not answered"))
    )


PICKER = """SELECT value, what FROM (
SELECT '0' AS value, 'pick a probe' AS what, 0 AS place, now64(9) AS ts
UNION ALL
SELECT toString(probe_id), concat(outcome, ' ', formatDateTime(ts, '%T'), ' ', prober, ' to ',
if(v.name = '', 'VIP ' || toString(vip_id), toString(v.name)), ' (', toString(probe_id), ')'),
if(outcome = 'answered', 2, 1), ts
FROM (
(SELECT probe_id, outcome, ts, prober, vip_id FROM probes WHERE $__timeFilter_ms(ts) AND outcome != 'answered'
ORDER BY ts DESC LIMIT 100)
UNION ALL
(SELECT probe_id, outcome, ts, prober, vip_id FROM probes
WHERE ts >= $__toTime_ms - INTERVAL 30 SECOND AND ts <= $__toTime_ms AND outcome = 'answered' ORDER BY ts DESC LIMIT 20)
) AS p LEFT JOIN vips AS v ON v.id = p.vip_id
) ORDER BY place, ts DESC"""

VERDICT = f"""
SELECT multiIf({_PROBE} = 0, NULL, known = 0 AND died = '' AND saw = '', 'no record of this probe is in the warehouse',
outcome = 'answered', concat('answered in ', toString(round(rtt / 1e6, 2)), ' ms'),
died != '', concat(if(outcome = '', 'dropped', outcome), ': dropped ', died),
saw != '', concat(if(outcome = '', 'not closed yet', outcome), ': last seen ', saw),
concat(outcome, ': no node saw it')) AS verdict
FROM (SELECT count() AS known, toString(any(outcome)) AS outcome, any(rtt_ns) AS rtt FROM probes WHERE {_IT}) AS p,
(SELECT if(count() = 0, '', concat('by ', argMax(node, ts), ', ', argMax(reason, ts))) AS died FROM drop_points
WHERE {_IT}) AS d,
(SELECT if(count() = 0, '', concat('at ', argMax(node, ts), ', ', argMax(hop, ts))) AS saw FROM trace_points
WHERE {_IT}) AS t
"""


def seen() -> table.Panel:
    """What the prober wrote down."""
    return rows(
        "What the prober saw",
        "One row, written when the probe closed.",
        f"""
        SELECT toString(probe_id) AS probe, ts, prober, outcome, if(rtt_ns = 0, NULL, rtt_ns / 1e9) AS rtt,
        toString(v.name) AS vip, toString(v.home) AS cluster,
        concat({_SHOWN.format("src_addr")}, ' port ', toString(src_port)) AS source,
        concat({_SHOWN.format("dst_addr")}, ' port ', toString(dst_port)) AS target, retransmits
        FROM probes AS p LEFT JOIN vips AS v ON v.id = p.vip_id WHERE {_IT}
        """,
        {
            "probe": Column(width=links.NUMBER_WIDTH, unit="string"),
            "ts": when("sent", precise=True),
            "prober": Column(width=100),
            "outcome": Column(width=90, words=OUTCOMES),
            "rtt": Column(title="round trip", width=100, unit="s"),
            "vip": links.vip(),
            "cluster": links.cluster(title="home cluster"),
            "source": Column(width=230, wrap=True),
            "target": Column(width=230, wrap=True),
        },
        height=4,
        nothing="no prober's record of such a probe",
    )


def journey() -> table.Panel:
    """Each hop."""
    return rows(
        "Journey",
        "In order of time. Offset is from the SYN's departure at the prober; the tunnel is the outer source as the "
        "packet came and the outer destination as it left.",
        f"""
        WITH (SELECT min(ts) FROM probes WHERE {_IT}) AS sent
        SELECT dateDiff('microsecond', sent, ts) / 1e6 AS offset, hop, toString(node) AS node, worker,
        multiIf(bitAnd(tcp_flags, 4) = 4, 'RST', bitAnd(tcp_flags, 18) = 18, 'SYN-ACK', 'SYN') AS packet,
        if(reason = '', 'passed', concat('dropped: ', reason)) AS what, residence_ns / 1e9 AS residence,
        {_SHOWN.format("outer_src")} AS tunnel_from, {_SHOWN.format("outer_dst")} AS tunnel_to,
        s.name AS real_server
        FROM (
            SELECT ts, hop, node, worker, tcp_flags, '' AS reason, residence_ns, outer_src, outer_dst, server_id
            FROM trace_points WHERE {_IT}
            UNION ALL
            SELECT ts, hop, node, worker, tcp_flags, toString(reason), residence_ns, outer_src, outer_dst,
            server_id
            FROM drop_points WHERE {_IT}
        ) AS t LEFT JOIN servers AS s ON s.id = t.server_id
        ORDER BY ts LIMIT 1000
        """,
        {
            "offset": Column(width=100, unit="s"),
            "hop": Column(width=90),
            "node": links.node(),
            "worker": Column(width=70),
            "packet": Column(width=90),
            "what": Column(width=220, wrap=True, words=(("^passed", GOOD), ("^dropped", BAD))),
            "residence": Column(width=100, unit="s"),
            "tunnel_from": Column(title="tunnel from", width=160, wrap=True),
            "tunnel_to": Column(title="tunnel to", width=160, wrap=True),
            "real_server": Column(title="real server"),
        },
        height=10,
        nothing=_NONE,
    )
