"""Fleet health: what is wrong, since when, whom it hits, what was done; and is the telemetry itself whole?"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import stat, table, timeseries
from grafana_foundation_sdk.models import dashboard as models

from dashboards import links, nodes
from dashboards.counts import QUANTILES, counts, newest
from dashboards.failures import failures
from dashboards.panels import (
    BAD,
    CALM,
    GOOD,
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
)
from dashboards.source import ALL, REF, Places
from dashboards.sql import (
    STEP,
    VIP_NAMES,
    chosen_vip,
    incident_range,
    last_minute,
    lines,
    vip_words,
    wide,
)

MINUTE = "In the last minute of the range of which everything is known (it ends 5 s before the range does)."


def build(places: Places) -> builders.Dashboard:
    """The dashboard."""
    dashboard = (
        builders.Dashboard("tgw: fleet health")
        .uid(links.FLEET)
        .tags(["tgw"])
        .description("What is wrong, since when, whom it hits, what was done. The variables choose nodes and VIPs.")
        .refresh("10s")
        .time("now-15m", "now")
        .timezone("utc")
        .tooltip(1)  # type: ignore[arg-type]  # the crosshair is shared
        .with_variable(choice("az", "AZ", "SELECT DISTINCT az FROM nodes ORDER BY az"))
        .with_variable(choice("role", "Role", "SELECT DISTINCT role FROM nodes ORDER BY role"))
        .with_variable(choice("cluster", "Cluster", "SELECT DISTINCT cluster FROM nodes ORDER BY cluster"))
        .with_variable(choice("node", "Node", "SELECT name FROM nodes ORDER BY name LIMIT 5000"))
        .with_variable(choice("vip", "VIP", "SELECT name FROM vips ORDER BY name LIMIT 5000"))
        .annotation(links.INCIDENTS)
        .annotation(links.MIGRATIONS)
    )
    dashboard = links.navigation(dashboard, places).with_row(builders.Row("At the end of this range"))
    for tile in tiles():
        dashboard = dashboard.with_panel(tile)
    dashboard = (
        dashboard.with_row(builders.Row("What is wrong, whom it hits, what was done"))
        .with_panel(incidents())
        .with_panel(outcomes())
        .with_panel(by_cluster())
        .with_panel(hit())
        .with_panel(failures("Latest probes not answered", " and of the chosen VIPs", chosen_vip("p.vip_id"), width=12))
        .with_row(builders.Row("Nodes"))
    )
    for panel in nodes.panels():
        dashboard = dashboard.with_panel(panel)
    return dashboard.with_panel(round_trips()).with_row(builders.Row("Telemetry")).with_panel(nodes.taps())


def choice(name: str, label: str, sql: str) -> builders.QueryVariable:
    """A variable that chooses some of the names that `sql` gives, at first all."""
    return (
        builders.QueryVariable(name)
        .label(label)
        .datasource(REF)
        .query(sql)
        .refresh(models.VariableRefresh.ON_DASHBOARD_LOAD)
        .sort(models.VariableSort.DISABLED)
        .multi(True)
        .include_all(True)
        .all_value(ALL)
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def tiles() -> list[stat.Panel]:
    """Six numbers about one minute, the freshness of what they rest on first."""
    return [
        number(
            "Newest record",
            "How long before the end of the range the newest record was made, of a probe or of a node. Grey: none "
            "within a day; nothing else on this dashboard can be trusted then.",
            f"""
            SELECT if(count() = 0, NULL, dateDiff('millisecond', max(newest), $__toTime_ms) / 1000) AS age
            FROM ({newest()})
            """,
            "s",
            thresholds((0, CALM), (15, WARN), (60, BAD)),
        ),
        number(
            "Open incidents",
            f"Incidents that were not closed then, whenever they began; unknown while no probe comes in. {MINUTE}",
            f"""
            SELECT if(open > 0 OR known > 0, toNullable(open), NULL) AS open FROM
            (SELECT count() AS open FROM incidents FINAL
                WHERE opened <= $__toTime_ms AND (closed IS NULL OR closed > $__toTime_ms)) AS i,
            (SELECT count() AS known FROM probes WHERE {last_minute("ts")}) AS p
            """,
            "short",
            thresholds((0, GOOD), (1, BAD)),
        ),
        number(
            "Probes answered",
            f"Share of the probes of the chosen VIPs that were answered. {MINUTE}",
            f"""
            SELECT if(count() = 0, NULL, countIf(outcome = 'answered') / count()) AS answered
            FROM probes WHERE {last_minute("ts")} AND {chosen_vip("vip_id")}
            """,
            "percentunit",
            thresholds((0, BAD), (0.99, WARN), (0.999, GOOD)),
            decimals=2,
        ),
        nodes.alive(MINUTE),
        nodes.tapped(MINUTE),
        nodes.lost(MINUTE),
    ]


def incidents() -> table.Panel:
    """Every incident of the range."""
    return rows(
        "Incidents",
        "Every incident that was open at some time in this range, those still open first; each leads to its dashboard.",
        f"""
        WITH {VIP_NAMES} AS vip_names
        SELECT state, opened AS since, if(closed IS NULL, 'still open', formatDateTime(closed, '%F %T')) AS ended,
        dateDiff('second', opened, coalesce(closed, now64(9))) AS lasted, subject, kind,
        {vip_words("vips", "vip_names")} AS hits,
        multiIf(did != '', did, said != '', said, 'nothing yet') AS done, summary, id, {incident_range()}
        FROM incidents AS i FINAL LEFT JOIN (
            SELECT incident_id, argMax(text, seq) AS said FROM incident_events FINAL
            WHERE kind IN ('decision', 'refused') GROUP BY incident_id) AS e ON e.incident_id = i.id
        LEFT JOIN (
            SELECT incident_id,
            argMax(concat(cluster, ': ', state, if(detail = '', '', concat(', ', detail))), ts) AS did
            FROM actions FINAL GROUP BY incident_id) AS a ON a.incident_id = i.id
        WHERE opened <= $__toTime_ms AND (closed IS NULL OR closed >= $__fromTime_ms)
        ORDER BY state = 'closed', opened DESC LIMIT 100
        """,
        {
            "state": Column(width=110, wrap=True, words=STATES, link=("this incident", links.OF_INCIDENT)),
            "since": when(),
            "ended": Column(width=165),
            "lasted": Column(width=80, unit="s"),
            "subject": Column(width=120, link=("this incident", links.OF_INCIDENT)),
            "kind": Column(width=110),
            "hits": Column(width=200, wrap=True),
            "done": Column(title="what was done", width=260, wrap=True),
            "summary": Column(wrap=True),
            "id": Column(hidden=True),
            "from_ms": Column(hidden=True),
            "to_ms": Column(hidden=True),
        },
        height=9,
        nothing="no incident is known in this time range",
    )


def hit() -> table.Panel:
    """The VIPs that suffer most."""
    return rows(
        "VIPs with the most probes not answered",
        "The worst 20 of the chosen VIPs in this range.",
        f"""
        SELECT name AS vip, home AS cluster, failed / sent AS share, failed, refused, last AS last_failed
        FROM (
            SELECT vip_id, sum(n) AS sent, sumIf(n, outcome != 'answered') AS failed,
            sumIf(n, outcome = 'refused') AS refused, maxIf(last, outcome != 'answered') AS last
            FROM ({counts("probes", ["vip_id", "outcome"], chosen_vip("vip_id"), whole=True)})
            GROUP BY vip_id HAVING failed > 0 ORDER BY failed / sent DESC, failed DESC LIMIT 20
        ) AS p LEFT JOIN (SELECT id, toString(name) AS name, toString(home) AS home FROM vips) AS v ON v.id = p.vip_id
        ORDER BY share DESC, failed DESC
        """,
        {
            "vip": links.vip(),
            "cluster": links.cluster(title="home cluster"),
            "share": Column(title="not answered", width=110, unit="percentunit"),
            "failed": Column(title="probes", width=75, unit="short"),
            "refused": Column(width=80, unit="short"),
            "last_failed": when("last one", fill=True),
        },
        width=12,
        nothing="no unanswered probe is known in this time range",
    )


def outcomes() -> timeseries.Panel:
    """What came back for probes."""
    return series(
        "Probes by outcome",
        "Probes of the chosen VIPs per second, by what came back.",
        wide(
            {word: f"sumIf(n, outcome = '{word}') / {STEP}" for word in OUTCOMES},
            counts("probes", ["outcome"], chosen_vip("vip_id")),
        ),
        RATE,
        colours=OUTCOMES,
        bars=True,
    )


def by_cluster() -> timeseries.Panel:
    """Which clusters' VIPs are hit."""
    return series(
        "Probes not answered, by home cluster",
        "Share of the probes of each cluster's VIPs that were not answered; the 8 clusters with the highest.",
        lines(
            "cluster",
            f"""
            SELECT home AS name, step, sum(failed) / sum(sent) AS value FROM (
                SELECT vip_id, step, sum(n) AS sent, sumIf(n, outcome != 'answered') AS failed
                FROM ({counts("probes", ["vip_id", "outcome"], chosen_vip("vip_id"))}) GROUP BY vip_id, step
            ) AS p INNER JOIN (SELECT id, home FROM vips) AS v ON v.id = p.vip_id GROUP BY name, step
            """,
            "max(value)",
        ),
        "percentunit",
        label="cluster",
        links={"this cluster": links.fleet("cluster")},
    )


def round_trips() -> timeseries.Panel:
    """How long answers take."""
    return series(
        "Round trip",
        "Of answered probes of the chosen VIPs, from the SYN to the SYN-ACK at the prober: the median, and what 99 of "
        "100 stay below.",
        wide(
            {"median": f"{QUANTILES}[1] / 1e9", "p99": f"{QUANTILES}[2] / 1e9"},
            counts("probes", [], f"outcome = 'answered' AND {chosen_vip('vip_id')}", digest=True),
        ),
        "s",
        colours={"median": CALM, "p99": WARN},
    )
