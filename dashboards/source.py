"""The ClickHouse data source, its queries, and what its macros stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from grafana_foundation_sdk.cog import builder, variants
from grafana_foundation_sdk.models.dashboard import DataSourceRef

PLUGIN = "grafana-clickhouse-datasource"
UID = "tgw-clickhouse"
NAME = "tgw ClickHouse"
REF = DataSourceRef(type_val=PLUGIN, uid=UID)


@dataclass(frozen=True, slots=True)
class ClickHouseQuery(variants.Dataquery):
    """A query of the ClickHouse plugin. `table`: rows as they are; otherwise time, series, value."""

    sql: str
    table: bool
    ref_id: str = "A"

    def to_json(self) -> dict[str, object]:
        """As the plugin (version 4) stores it in a panel."""
        return {
            "refId": self.ref_id,
            "datasource": {"type": PLUGIN, "uid": UID},
            "editorType": "sql",
            "pluginVersion": "4.5.0",
            "queryType": "table" if self.table else "timeseries",
            "format": 1 if self.table else 0,
            "rawSql": self.sql,
        }


class Query(builder.Builder[ClickHouseQuery]):
    """Builds a ClickHouseQuery; lines of `sql` lose the indentation they have in the source."""

    def __init__(self, sql: str, *, table: bool = False) -> None:
        lines = [line.strip() for line in sql.strip().splitlines()]
        self._query = ClickHouseQuery("\n".join(lines), table)

    def build(self) -> ClickHouseQuery:
        """The query."""
        return self._query


@dataclass(frozen=True, slots=True)
class Places:
    """Where a browser reaches what the dashboards link to, without a slash at the end."""

    analyzer: str = "http://127.0.0.1:7403"
    control: str = "http://127.0.0.1:7401"


@dataclass(frozen=True, slots=True)
class Range:
    """A time range and resolution, as Grafana gives them to the plugin [ms since 1970, s]."""

    from_ms: int
    to_ms: int
    interval_s: int = 10


_MACROS = re.compile(r"\$__(\w+)(?:\(([^()]*)\))?")
_VARIABLES = re.compile(r"\$\{(\w+)(?::(\w+))?\}")


def text(variable: str) -> str:
    """SQL for a variable's value, whatever is in it.

    Grafana's own SQL formats leave the backslash as it is, which ClickHouse takes for an escape: a value then ends its
    string early and goes on as SQL. Percent-encoded, a value has only letters, digits and -_.~% in it.
    """
    return f"decodeURLComponent('${{{variable}:percentencode}}')"


def names(variable: str) -> str:
    """SQL for the array of a variable's values, one or several; Grafana writes several as {a,b}."""
    return f"extractAll({text(variable)}, '[^{{}},]+')"


ALL = "*"


def among(column: str, variable: str) -> str:
    """SQL: the column is one of a variable's values, or the variable stands for all."""
    return f"hasAny({names(variable)}, ['{ALL}', toString({column})])"


def expand(sql: str, span: Range, variables: dict[str, Any]) -> str:
    """The SQL that the plugin would send: variables, then macros replaced. ValueError for one that is unknown.

    Follows Grafana's formats of variables and the plugin's documented macros; the tests run what it gives.
    """

    def macro(match: re.Match[str]) -> str:
        name, argument = match[1], match[2] or ""
        start, end = f"fromUnixTimestamp64Milli({span.from_ms})", f"fromUnixTimestamp64Milli({span.to_ms})"
        match name:
            case "timeFilter":
                first, last = span.from_ms // 1000, span.to_ms // 1000
                return f"{argument} >= toDateTime({first}) AND {argument} <= toDateTime({last})"
            case "timeFilter_ms":
                return f"{argument} >= {start} AND {argument} <= {end}"
            case "timeInterval":
                return f"toStartOfInterval(toDateTime({argument}), INTERVAL {span.interval_s} second)"
            case "fromTime":
                return f"toDateTime({span.from_ms // 1000})"
            case "toTime":
                return f"toDateTime({span.to_ms // 1000})"
            case "fromTime_ms":
                return start
            case "toTime_ms":
                return end
            case "interval_s":
                return str(span.interval_s)
        raise ValueError(f"unknown macro $__{name}")

    def variable(match: re.Match[str]) -> str:
        name, form = match[1], match[2]
        if name not in variables:
            raise ValueError(f"unknown variable ${{{name}}}")
        value = variables[name]
        several = isinstance(value, list)
        values = [str(v) for v in value] if several else [str(value)]
        if form == "percentencode":
            return quote("{" + ",".join(values) + "}" if several else values[0], safe="")
        if form == "sqlstring":  # as Grafana writes it, for the test that says why nobody uses it
            return ",".join("'" + v.replace("'", "''").replace('"', '\\"') + "'" for v in values)
        return ",".join(values)

    return _MACROS.sub(macro, _VARIABLES.sub(variable, sql))
