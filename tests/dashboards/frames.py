"""What Grafana makes of a panel's rows: the plugin's step from long to wide, and the names that Grafana shows.

Follows grafana-plugin-sdk-go's LongToWide and Grafana's names of fields: the string columns of a time series are
labels, each numeric column gives a series per combination of labels, and a series has a point only at times that some
row has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dashboards.source import Range, expand
from warehouse.client import Connection

EVERYTHING: dict[str, Any] = {
    **dict.fromkeys(("az", "role", "cluster", "node", "vip"), "*"),
    "analyzer": "http://192.0.2.1",
    "control": "http://192.0.2.2",
}
# What Grafana itself can put into the URL of a link.
BUILT_IN = {"__from", "__to"}


@dataclass(frozen=True, slots=True)
class Frame:
    """The columns of an answer (name, type), and its rows."""

    columns: list[tuple[str, str]]
    rows: list[tuple[Any, ...]]

    def column(self, name: str) -> list[Any]:
        i = [n for n, _ in self.columns].index(name)
        return [row[i] for row in self.rows]

    def records(self) -> list[dict[str, Any]]:
        return [dict(zip([n for n, _ in self.columns], row, strict=True)) for row in self.rows]


@dataclass(frozen=True, slots=True)
class Line:
    """A series: what Grafana calls it, its labels, its points (None is a gap)."""

    name: str
    labels: dict[str, str]
    points: dict[datetime, float | None]

    def values(self) -> list[float | None]:
        return list(self.points.values())


def ask(reader: Connection, sql: str, span: Range, **variables: Any) -> Frame:
    """The answer to a statement of a dashboard."""
    text = expand(sql, span, {**EVERYTHING, **variables})
    described = reader.query(f"DESCRIBE TABLE ({text})")
    return Frame([(row[0], row[1]) for row in described], reader.query(text))


def lines(panel: dict[str, Any], frame: Frame) -> list[Line]:
    """The series that a panel of time series shows."""
    kinds = [kind(type_) for _, type_ in frame.columns]
    assert kinds.count("time") == 1, frame.columns
    at = kinds.index("time")
    times = [row[at] for row in frame.rows]
    assert times == sorted(times), "the plugin refuses rows that are not in order of time"
    labels = [i for i, k in enumerate(kinds) if k == "string"]
    found: dict[tuple[int, tuple[str, ...]], dict[datetime, float | None]] = {}
    for row in frame.rows:
        for i, k in enumerate(kinds):
            if k == "number":
                points = found.setdefault((i, tuple(row[j] for j in labels)), dict.fromkeys(times))
                assert points[row[at]] is None, f"two rows at {row[at]} for {row}"
                points[row[at]] = row[i]
    out = []
    for (i, values), points in found.items():
        own = {frame.columns[j][0]: value for j, value in zip(labels, values, strict=True)}
        out.append(Line(shown(panel, frame.columns[i][0], own), own, points))
    return out


def kind(type_: str) -> str:
    """time, number or string."""
    if "DateTime" in type_:
        return "time"
    return "number" if re.search(r"Int|Float|Decimal|Bool", type_) else "string"


def shown(panel: dict[str, Any], field: str, labels: dict[str, str]) -> str:
    """The name that Grafana shows for a field."""
    given = panel["fieldConfig"]["defaults"].get("displayName")
    if given:
        return re.sub(r"\$\{__field\.labels\.(\w+)\}", lambda m: labels[m[1]], given)
    if not labels:
        return field
    return f"{field} {next(iter(labels.values()))}" if len(labels) == 1 else f"{field} {labels}"


def by_name(panel: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The overrides that a panel has for named series or columns: name -> property -> value."""
    out: dict[str, dict[str, Any]] = {}
    for override in panel["fieldConfig"]["overrides"]:
        assert override["matcher"]["id"] == "byName"
        properties = {p["id"]: p.get("value") for p in override["properties"]}
        out.setdefault(override["matcher"]["options"], {}).update(properties)
    return out


def urls(panel: dict[str, Any]) -> list[str]:
    """Every URL that a panel links to."""
    found = [link["url"] for link in panel["fieldConfig"]["defaults"].get("links") or []]
    for properties in by_name(panel).values():
        found += [link["url"] for link in properties.get("links") or []]
    return found


def _matches(pattern: str, text: str) -> bool:
    """As Grafana does: a pattern in slashes as it stands, another as the whole text."""
    inner = re.fullmatch(r"/(.*)/[a-z]*", pattern)
    return bool(re.search(inner[1], text) if inner else re.fullmatch(pattern, text))


def mapped(panel: dict[str, Any], value: object, mappings: Any = None) -> tuple[str, str | None]:
    """(text, colour) that Grafana shows for a value by the panel's mappings; its thresholds where none matches."""
    defaults = panel["fieldConfig"]["defaults"]
    for mapping in (mappings or defaults.get("mappings") or []) if value is not None else []:
        options = mapping["options"]
        if mapping["type"] == "value" and str(value) in options:
            return options[str(value)].get("text") or str(value), options[str(value)]["color"]
        if mapping["type"] == "regex" and _matches(options["pattern"], str(value)):
            return str(value), options["result"]["color"]
    steps = defaults.get("thresholds", {}).get("steps", [])
    colour = None
    for limit in steps:
        if limit["value"] is None or (isinstance(value, int | float) and value >= limit["value"]):
            colour = limit["color"]
    return ("" if value is None else str(value)), colour
