"""One incident: what was seen, what was decided, what was done, and what the probes say since."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.models import dashboard as models

from dashboards import links
from dashboards.panels import (
    BAD,
    CALM,
    GOOD,
    MIGRATIONS,
    OUTCOMES,
    STATES,
    WARN,
    Column,
    number,
    rows,
    series,
    thresholds,
    words,
)
from dashboards.source import REF, Places, text
from dashboards.sql import STEP, in_steps, incident_range, last_minute, lines, step, wide

_ID = text("incident")
_IT = f"FROM incidents FINAL WHERE id = {_ID}"
_VIPS = f"(SELECT arrayJoin(vips) {_IT})"
_NODES = f"(SELECT arrayJoin(named_nodes) {_IT})"
_NONE = "pick an incident above"


def build(places: Places) -> builders.Dashboard:
    """The dashboard."""
    dashboard = (
        builders.Dashboard("tgw: one incident")
        .uid(links.INCIDENT)
        .tags(["tgw"])
        .description(
            "Evidence, timeline and actions of the chosen incident. The charts show the time range; links to here set "
            "it to the incident and 10 minutes on both sides."
        )
        .refresh("10s")
        .time("now-1h", "now")
        .timezone("utc")
        .tooltip(1)  # type: ignore[arg-type]  # the crosshair is shared
        .with_variable(
            builders.QueryVariable("incident")
            .label("Incident")
            .datasource(REF)
            .query(
                "SELECT id, concat(state, ': ', kind, ' of ', subject, ', ', formatDateTime(opened, '%F %T')) AS what "
                "FROM incidents FINAL ORDER BY state = 'closed', opened DESC LIMIT 200"
            )
            .refresh(models.VariableRefresh.ON_DASHBOARD_LOAD)
            .sort(models.VariableSort.DISABLED)
        )
        .annotation(links.INCIDENTS)
        .annotation(links.MIGRATIONS)
    )
    dashboard = links.navigation(dashboard, places).with_row(builders.Row("What it is"))
    for tile in tiles():
        dashboard = dashboard.with_panel(tile)
    return (
        dashboard.with_panel(what())
        .with_row(builders.Row("What happened, and what was done"))
        .with_panel(timeline())
        .with_panel(actions())
        .with_row(builders.Row("What the probes saw in this time range"))
        .with_panel(outcomes())
        .with_panel(passed())
        .with_panel(drops())
        .with_panel(hit())
        .with_row(builders.Row("One by one"))
        .with_panel(named())
        .with_panel(failed())
    )


def tiles() -> list[stat.Panel]:
    """Its state, and four numbers."""
    return [
        number(
            "State",
            "What the analyzer says of it: open, acting (a migration runs), verifying (fresh probes decide), mitigated "
            "(traffic is clean, the fault is still there), closed.",
            f"SELECT state {_IT}",
            "string",
            mappings=[words(STATES)],
            width=6,
            nothing=_NONE,
        ),
        number(
            "Lasted",
            "From the opening to the close, or until now.",
            f"SELECT dateDiff('millisecond', opened, coalesce(closed, now64(9))) / 1000 AS lasted {_IT}",
            "s",
            thresholds((0, CALM)),
            nothing=_NONE,
        ),
        number(
            "First action after",
            "From the opening to the first thing that was asked of the control plane.",
            f"""
            SELECT if(count() = 0, NULL, min(dateDiff('millisecond', opened, ts)) / 1000) AS after FROM
            (SELECT ts FROM actions FINAL WHERE incident_id = {_ID}) AS a, (SELECT opened {_IT}) AS i
            """,
            "s",
            thresholds((0, CALM)),
            nothing="no action",
        ),
        number(
            "VIPs affected",
            "VIPs whose probes are evidence of it, or whose home it is.",
            f"SELECT length(vips) AS vips {_IT}",
            "short",
            thresholds((0, CALM)),
            nothing=_NONE,
        ),
        number(
            "Its VIPs' probes answered",
            "In the last minute of the time range of which everything is known.",
            f"""
            SELECT if(sum(probes) = 0, NULL, sumIf(probes, outcome = 'answered') / sum(probes)) AS answered
            FROM probes_1s WHERE {last_minute("second")} AND vip_id IN {_VIPS}
            """,
            "percentunit",
            thresholds((0, BAD), (0.99, WARN), (0.999, GOOD)),
            width=6,
            decimals=2,
        ),
    ]


def what() -> table.Panel:
    """The incident in one row."""
    return rows(
        "Incident",
        "What the analyzer says of it. A link sets the time range to the incident and 10 minutes on both sides.",
        f"""
        SELECT summary, subject, kind, severity, cluster, opened,
        if(closed IS NULL, 'still open', formatDateTime(closed, '%F %T')) AS ended, 'around it' AS show, id,
        {incident_range()}
        FROM (SELECT * {_IT}) AS i
        LEFT JOIN (SELECT toString(name) AS name, toString(cluster) AS cluster FROM nodes) AS n ON n.name = i.subject
        """,
        {
            "summary": Column(wrap=True, link=("the analyzer's account", links.AT_ANALYZER)),
            "subject": Column(width=120),
            "kind": Column(width=120),
            "severity": Column(width=80),
            "cluster": links.cluster(),
            "opened": Column(width=160),
            "ended": Column(width=150),
            "show": Column(title="time range", width=100, link=("show this incident's time", links.OF_INCIDENT)),
            "id": Column(hidden=True),
            "from_ms": Column(hidden=True),
            "to_ms": Column(hidden=True),
        },
        height=5,
        nothing=_NONE,
    )


def timeline() -> table.Panel:
    """What the analyzer noted."""
    return rows(
        "Timeline",
        "Everything the analyzer noted, oldest first; the offset is from the opening.",
        f"""
        SELECT dateDiff('millisecond', (SELECT min(opened) {_IT}), ts) / 1000 AS offset, ts, kind, text
        FROM incident_events FINAL WHERE incident_id = {_ID} ORDER BY ts, seq LIMIT 500
        """,
        {
            "offset": Column(width=80, unit="s"),
            "ts": Column(title="time", width=160),
            "kind": Column(width=90),
            "text": Column(wrap=True),
        },
        width=13,
        height=11,
        nothing="nothing was noted",
    )


def actions() -> table.Panel:
    """What was asked of control."""
    return rows(
        "Actions",
        "What was asked of the control plane, and what it answered; a refusal names its rail.",
        f"""
        SELECT ts, kind, cluster, state, detail, id FROM actions FINAL
        WHERE incident_id = {_ID} ORDER BY ts LIMIT 100
        """,
        {
            "ts": Column(title="asked", width=160),
            "kind": Column(width=100, wrap=True, link=("this migration", links.AT_CONTROL)),
            "cluster": links.cluster(),
            "state": Column(width=100, wrap=True, words=MIGRATIONS),
            "detail": Column(wrap=True),
            "id": Column(hidden=True),
        },
        width=11,
        height=11,
        nothing="nothing was asked of the control plane for it",
    )


def outcomes() -> timeseries.Panel:
    """What came back for the probes of its VIPs."""
    return series(
        "Probes of its VIPs, by outcome",
        "Per second.",
        wide(
            {word: f"sumIf(probes, outcome = '{word}') / {STEP}" for word in OUTCOMES},
            f"FROM (SELECT {step('second')} AS at, outcome, sum(probes) AS probes FROM probes_1s "
            f"WHERE {in_steps('second')} AND vip_id IN {_VIPS} GROUP BY at, outcome)",
        ),
        "cps",
        colours=OUTCOMES,
        bars=True,
    )


def passed() -> timeseries.Panel:
    """What its nodes passed."""
    return series(
        "Coloured packets through its nodes",
        "Trace Points of the named nodes per second. Zero where the collector looked at a node that passed nothing.",
        lines(
            "node",
            f"""
            SELECT node AS name, step, sum(points) / {STEP} AS value FROM (
                SELECT node, {step("second")} AS step, sum(points) AS points FROM trace_points_1s
                WHERE {in_steps("second")} AND node IN {_NODES} GROUP BY node, step
                UNION ALL
                SELECT node, {step("ts")} AS step, 0 AS points FROM feeds
                WHERE {in_steps("ts")} AND node IN {_NODES} GROUP BY node, step)
            GROUP BY name, step
            """,
            "max(value)",
        ),
        "cps",
        label="node",
        links={"this node": links.fleet("node")},
    )


def drops() -> timeseries.Panel:
    """What died around it."""
    return series(
        "Drop Points in the region",
        "Packets that died per second, anywhere; the 10 pairs of node and reason with the most.",
        lines(
            "what",
            f"""
            SELECT concat(node, ' ', reason) AS name, {step("second")} AS step, sum(points) / {STEP} AS value
            FROM drop_points_1s WHERE {in_steps("second")} GROUP BY name, step
            """,
            "sum(value)",
        ),
        "cps",
        label="what",
        bars=True,
    )


def hit() -> table.Panel:
    """Its VIPs."""
    return rows(
        "Its VIPs",
        "Those with the most probes not answered in this time range first (100 at most), and when one failed last.",
        f"""
        SELECT if(name = '', toString(i.vip_id), name) AS vip, home AS cluster,
        if(sent = 0, NULL, failed / sent) AS share, if(failed = 0, NULL, last) AS last_failed
        FROM (SELECT arrayJoin(vips) AS vip_id {_IT}) AS i
        LEFT JOIN (
            SELECT vip_id, sum(probes) AS sent, sumIf(probes, outcome != 'answered') AS failed,
            maxIf(second, outcome != 'answered') AS last
            FROM probes_1s WHERE $__timeFilter(second) AND vip_id IN {_VIPS} GROUP BY vip_id
        ) AS p ON p.vip_id = i.vip_id
        LEFT JOIN (SELECT id, toString(name) AS name, toString(home) AS home FROM vips) AS v ON v.id = i.vip_id
        ORDER BY share DESC NULLS LAST, vip LIMIT 100
        """,
        {
            "vip": links.vip(),
            "cluster": links.cluster(title="home cluster"),
            "share": Column(title="not answered", width=110, unit="percentunit"),
            "last_failed": Column(title="last failed"),
        },
        width=12,
        nothing="no VIP is affected",
    )


def named() -> table.Panel:
    """Its nodes."""
    return rows(
        "Nodes it names",
        "Where the fault lies, and whether their processes beat at the end of the time range.",
        f"""
        SELECT toString(i.node) AS node, toString(n.cluster) AS cluster, toString(n.role) AS role,
        toString(n.az) AS az,
        multiIf(looked = 0, 'nobody looked', beats = 1, 'beats', 'does not beat') AS process
        FROM (SELECT arrayJoin(named_nodes) AS node {_IT}) AS i
        LEFT JOIN (SELECT toString(name) AS name, cluster, role, az FROM nodes) AS n ON n.name = i.node
        LEFT JOIN (
            SELECT toString(node) AS node, min(beats) AS beats, 1 AS looked FROM (
                SELECT node, worker, argMax(alive, ts) AS beats FROM feeds WHERE {last_minute("ts")}
                GROUP BY node, worker)
            GROUP BY node) AS f ON f.node = i.node
        ORDER BY process = 'beats', node LIMIT 100
        """,
        {
            "node": links.node(),
            "cluster": links.cluster(),
            "role": Column(width=80),
            "az": Column(width=80),
            "process": Column(words={"beats": GOOD, "does not beat": BAD}),
        },
        width=10,
        nothing="no node is named",
    )


def failed() -> table.Panel:
    """Single probes."""
    return rows(
        "Probes of its VIPs that were not answered",
        "The first 100 of this time range; each leads to its journey.",
        f"""
        SELECT toString(probe_id) AS probe, ts, prober, toString(v.name) AS vip, outcome, src_port
        FROM probes AS p LEFT JOIN vips AS v ON v.id = p.vip_id
        WHERE $__timeFilter_ms(ts) AND p.vip_id IN {_VIPS} AND outcome != 'answered' ORDER BY ts LIMIT 100
        """,
        {
            "probe": links.probe(),
            "ts": Column(title="sent", width=160),
            "prober": Column(width=90),
            "vip": links.vip(),
            "outcome": Column(width=90, words=OUTCOMES),
            "src_port": Column(title="source port", unit="string"),
        },
        width=14,
        nothing="every probe of its VIPs in this time range that is known was answered",
    )
