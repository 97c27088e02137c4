"""One incident: what was seen, what was decided, what was done, and what the probes say since."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.models import dashboard as models

from dashboards import links
from dashboards.counts import counts
from dashboards.failures import failures
from dashboards.panels import (
    BAD,
    CALM,
    GOOD,
    MIGRATIONS,
    NEUTRAL,
    OUTCOMES,
    RATE,
    STATES,
    WARN,
    Column,
    number,
    rows,
    series,
    thresholds,
    when,
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
        .with_panel(
            failures(
                "Probes of its VIPs that were not answered",
                " and of its VIPs",
                f"p.vip_id IN {_VIPS}",
                first=True,
                limit=100,
                width=14,
            )
        )
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
            SELECT if(count() = 0, NULL, countIf(outcome = 'answered') / count()) AS answered
            FROM probes WHERE {last_minute("ts")} AND vip_id IN {_VIPS}
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
        SELECT summary, subject, kind, severity,
        multiIf(cluster != '', cluster, subject IN (SELECT toString(cluster) FROM nodes), subject, '') AS cluster,
        opened,
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
            "opened": when(),
            "ended": Column(width=165),
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
            "ts": when("time"),
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
            "ts": when("asked"),
            "kind": Column(width=175, link=("this migration", links.AT_CONTROL)),
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
            {word: f"sumIf(n, outcome = '{word}') / {STEP}" for word in OUTCOMES},
            counts("probes", ["outcome"], f"vip_id IN {_VIPS}"),
        ),
        RATE,
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
            SELECT node AS name, step, sum(n) / {STEP} AS value FROM (
                SELECT node, step, n FROM ({counts("trace_points", ["node"], f"node IN {_NODES}")})
                UNION ALL
                SELECT node, {step("ts")} AS step, 0 AS n FROM feeds
                WHERE {in_steps("ts")} AND node IN {_NODES} GROUP BY node, step)
            GROUP BY name, step
            """,
            "max(value)",
        ),
        RATE,
        label="node",
        links={"this node": links.fleet("node")},
    )


def drops() -> timeseries.Panel:
    """What died around it."""
    return series(
        "Drop Points in the region",
        "Packets that died per second, anywhere; the 8 pairs of node and reason with the most.",
        lines(
            "what",
            f"""
            SELECT concat(node, ' ', reason) AS name, step, sum(n) / {STEP} AS value
            FROM ({counts("drop_points", ["node", "reason"], "1")}) GROUP BY name, step
            """,
            "sum(value)",
        ),
        RATE,
        label="what",
        bars=True,
        shades=BAD,
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
            SELECT vip_id, sum(n) AS sent, sumIf(n, outcome != 'answered') AS failed,
            maxIf(last, outcome != 'answered') AS last
            FROM ({counts("probes", ["vip_id", "outcome"], f"vip_id IN {_VIPS}", whole=True)}) GROUP BY vip_id
        ) AS p ON p.vip_id = i.vip_id
        LEFT JOIN (SELECT id, toString(name) AS name, toString(home) AS home FROM vips) AS v ON v.id = i.vip_id
        ORDER BY share DESC NULLS LAST, vip LIMIT 100
        """,
        {
            "vip": links.vip(),
            "cluster": links.cluster(title="home cluster"),
            "share": Column(title="not answered", width=110, unit="percentunit"),
            "last_failed": when("last failed", fill=True),
        },
        width=12,
        nothing="no VIP is affected",
    )


def named() -> table.Panel:
    """Its nodes."""
    return rows(
        "Nodes it names",
        "Where the fault lies, and their processes at the end of the time range, as on the fleet's dashboard: alive; "
        "down (it did not beat when it was looked at last); no tap (nobody looks at it).",
        f"""
        SELECT toString(i.node) AS node, toString(n.cluster) AS cluster, toString(n.role) AS role,
        toString(n.az) AS az,
        multiIf(looked = 0, 'no tap', beats = 0, 'down', recent = 0, 'no tap', 'alive') AS process
        FROM (SELECT arrayJoin(named_nodes) AS node {_IT}) AS i
        LEFT JOIN (SELECT toString(name) AS name, cluster, role, az FROM nodes) AS n ON n.name = i.node
        LEFT JOIN (
            SELECT toString(node) AS node, min(beats) AS beats, 1 AS looked, max(recent) AS recent FROM (
                SELECT node, worker, argMax(alive, ts) AS beats, max({last_minute("ts")}) AS recent FROM feeds
                WHERE $__timeFilter_ms(ts) AND node IN {_NODES} GROUP BY node, worker)
            GROUP BY node) AS f ON f.node = i.node
        ORDER BY process = 'alive', node LIMIT 100
        """,
        {
            "node": links.node(),
            "cluster": links.cluster(),
            "role": Column(width=80),
            "az": Column(width=80),
            "process": Column(words={"alive": GOOD, "down": BAD, "no tap": NEUTRAL}),
        },
        width=10,
        nothing="no node is named",
    )
