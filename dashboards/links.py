"""Where things lead: every node, cluster, VIP, incident, probe and migration, with the time range it is about."""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog import builder
from grafana_foundation_sdk.models import dashboard as models

from dashboards.panels import BAD, CALM, Column
from dashboards.source import PLUGIN, REF, UID, Places, Query

FLEET, INCIDENT, PROBE = "tgw-fleet", "tgw-incident", "tgw-probe"
_NOW = "from=${__from}&to=${__to}"

# From a table's row. What is linked is a name or a number of ours, which needs no escaping in a URL; `from_ms` and
# `to_ms` are hidden columns of the row.
OF_INCIDENT = (
    f"/d/{INCIDENT}?var-incident=${{__data.fields.id}}&from=${{__data.fields.from_ms}}&to=${{__data.fields.to_ms}}"
)
AT_ANALYZER = "${analyzer:raw}/v1/incidents/${__data.fields.id}"
AT_CONTROL = "${control:raw}/v1/migrations/${__data.fields.id}"
OF_PROBE = f"/d/{PROBE}?var-probe=${{__data.fields.probe}}&{_NOW}"


# 20 digits [pixels].
NUMBER_WIDTH = 205


def fleet(variable: str, field: str = "", more: str = "") -> str:
    """The fleet dashboard for one node, cluster or VIP: that of a table's row, or of a chart's series (no `field`)."""
    value = f"${{__data.fields.{field}}}" if field else f"${{__field.labels.{variable}}}"
    return f"/d/{FLEET}?var-{variable}={value}&{_NOW}{more}"


def node(**more: Any) -> Column:
    """A column with a node's name."""
    return Column(width=120, link=("this node on the fleet dashboard", fleet("node", "node")), **more)


def cluster(**more: Any) -> Column:
    """A column with a cluster's name."""
    return Column(width=110, link=("this cluster on the fleet dashboard", fleet("cluster", "cluster")), **more)


def vip(**more: Any) -> Column:
    """A column with a VIP's name."""
    return Column(width=100, link=("this VIP on the fleet dashboard", fleet("vip", "vip")), **more)


def probe() -> Column:
    """A column with a probe's number: 64 bits, so a text, and wide enough for all 20 digits."""
    return Column(width=NUMBER_WIDTH, unit="string", link=("the journey of this probe", OF_PROBE))


def navigation(dashboard: builders.Dashboard, places: Places) -> builders.Dashboard:
    """The links at the top of a dashboard, and the addresses that its other links need."""
    ours = (
        builders.DashboardLink("tgw dashboards")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags(["tgw"])
        .as_dropdown(False)
        .keep_time(True)
    )
    console = builders.DashboardLink("analyzer").type(models.DashboardLinkType.LINK).target_blank(True)
    # Constants, because nobody can set one by a link: a URL out of the address bar would be somebody else's.
    return (
        dashboard.link(ours)
        .link(console.url("${analyzer:raw}"))
        .with_variable(builders.ConstantVariable("analyzer").label("Analyzer").value(places.analyzer))
        .with_variable(builders.ConstantVariable("control").label("Control").value(places.control))
    )


class _Asked:
    """An annotation's query, in the place where the SDK knows only those of Grafana's own data source."""

    def __init__(self, sql: str) -> None:
        self._query = Query(sql, table=True).build()

    def to_json(self) -> dict[str, object]:
        return {**self._query.to_json(), "refId": "annotation", "datasource": {"type": PLUGIN, "uid": UID}}


class _Target(builder.Builder[Any]):
    def __init__(self, sql: str) -> None:
        self._sql = sql

    def build(self) -> Any:
        """The query."""
        return _Asked(self._sql)


def marks(name: str, colour: str, sql: str) -> builders.AnnotationQuery:
    """Marks on every chart. `sql` gives time, text, tags, and timeEnd where a mark is a span."""
    return builders.AnnotationQuery().name(name).datasource(REF).enable(True).icon_color(colour).target(_Target(sql))


INCIDENTS = marks(
    "incidents",
    BAD,
    """
    SELECT opened AS time, coalesce(closed, toDateTime64($__toTime_ms, 9)) AS timeEnd,
    concat(kind, ' of ', subject, ' (', state, '): ', summary) AS text, state AS tags
    FROM incidents FINAL
    WHERE opened <= $__toTime_ms AND (closed IS NULL OR closed >= $__fromTime_ms)
    ORDER BY time DESC LIMIT 100
    """,
)
MIGRATIONS = marks(
    "migrations",
    CALM,
    """
    SELECT ts AS time, concat(kind, ' of ', cluster, ': ', state, if(detail = '', '', concat(', ', detail))) AS text,
    state AS tags
    FROM actions FINAL WHERE $__timeFilter_ms(ts) ORDER BY time DESC LIMIT 100
    """,
)
