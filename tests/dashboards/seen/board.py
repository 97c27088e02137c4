"""One dashboard with what its panels, variables and annotations get from a warehouse, drawn and told of by the page."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dashboards.source import Range, expand
from tests.dashboards.seen import wide
from tests.dashboards.seen.browser import Browser
from warehouse.client import connect
from warehouse.settings import WarehouseSettings

WIDTH = 1584
TABLE = 1  # the data source's `format`


@dataclass(slots=True)
class Seen:
    """A dashboard as it was drawn. `panels`: what each says of itself, by title; `complaints`: the page's console."""

    document: dict[str, Any]
    panels: dict[str, dict[str, Any]]
    variables: dict[str, dict[str, Any]]
    complaints: list[str] = field(default_factory=list)

    def panel(self, title: str) -> dict[str, Any]:
        """The panel's definition in the document."""
        found: dict[str, Any] = next(p for p in self.document["panels"] if p["title"] == title)
        return found


class Asker:
    """Asks a warehouse as Grafana's data source does: same reader, same macros, same types."""

    def __init__(self, settings: WarehouseSettings) -> None:
        self._client = connect(settings)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def ask(self, sql: str) -> list[wide.Field]:
        """The columns of an answer; whatever clickhouse-connect raises."""
        answer = self._client.query(sql, query_tz="UTC")
        return wide.fields(answer.column_names, [t.name for t in answer.column_types], answer.result_rows)


def look(
    browser: Browser,
    asker: Asker,
    document: dict[str, Any],
    range_ms: tuple[int, int],
    chosen: dict[str, Any] | None = None,
    mode: str = "dark",
    margin: str = "",
    picture: Path | None = None,
    vision: str = "none",
) -> Seen:
    """Draw a dashboard over a time range [ms since 1970]. `chosen`: values of variables; `mode`: dark or light."""
    times = {"from": range_ms[0], "to": range_ms[1]}
    variables = _variables(asker, document, range_ms, chosen or {})
    values = {name: v["value"] for name, v in variables.items()}
    plan = browser.apply("window.seen.plan", document, WIDTH, times)
    results = {}
    for panel in document["panels"]:
        if panel["type"] != "row":
            span = Range(*range_ms, interval_s=max(1, plan[str(panel["id"])]["interval_ms"] // 1000))
            results[panel["id"]] = _result(asker, panel, span, values)
    annotations = [
        event
        for query in document.get("annotations", {}).get("list", [])
        for event in _annotations(asker, query, Range(*range_ms), values)
    ]
    job = {
        "document": document,
        "width": WIDTH,
        "range": times,
        "variables": variables,
        "results": results,
        "annotations": annotations,
        "look": mode,
        "margin": margin,
    }
    before = len(browser.complaints)
    browser.vision(vision)
    browser.size(WIDTH + 16, 900)
    size = browser.apply("window.seen.draw", job)
    browser.size(size["width"], size["height"])
    told = browser.evaluate("window.seen.settled().then(window.seen.told)")
    if picture is not None:
        browser.picture(picture)
    by_id = {str(p["id"]): p["title"] for p in document["panels"]}
    panels = {by_id[key]: value for key, value in told.items() if value["type"] != "row"}
    return Seen(document, panels, variables, browser.complaints[before:])


def _result(asker: Asker, panel: dict[str, Any], span: Range, values: dict[str, Any]) -> dict[str, Any]:
    frames = []
    for target in panel.get("targets", []):
        try:
            found = asker.ask(expand(target["rawSql"], span, values))
            if target["format"] != TABLE:
                found = wide.series(found)
        except Exception as error:  # the panel shows it, as Grafana does
            return {"error": f"{type(error).__name__}: {error}"}
        if found:
            frames.append({"refId": target["refId"], "name": target["refId"], "fields": [f.json() for f in found]})
    return {"frames": frames}


def _annotations(asker: Asker, query: dict[str, Any], span: Range, values: dict[str, Any]) -> list[dict[str, Any]]:
    if not query.get("enable", True) or "target" not in query:
        return []
    columns = {f.name: f.values for f in asker.ask(expand(query["target"]["rawSql"], span, values))}
    return [
        {name: of[i] for name, of in columns.items()} | {"color": query.get("iconColor"), "name": query.get("name")}
        for i in range(len(columns.get("time", [])))
    ]


def _variables(
    asker: Asker, document: dict[str, Any], range_ms: tuple[int, int], chosen: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Each variable's value as Grafana has it when a dashboard is opened, or as a link chose it."""
    out: dict[str, dict[str, Any]] = {}
    for variable in document.get("templating", {}).get("list", []):
        name = variable["name"]
        current = variable.get("current") or {}
        value, text = current.get("value"), current.get("text")
        values = {n: v["value"] for n, v in out.items()}
        options: list[tuple[Any, str]] = []
        if variable["type"] == "query":
            columns = [f.values for f in asker.ask(expand(variable["query"], Range(*range_ms), values))]
            if columns:  # one column: value and text; two: the value, then the text
                options = list(zip(columns[0], columns[-1], strict=True))
        elif variable["type"] in ("constant", "textbox"):
            value = text = value if value is not None else variable["query"]
        if name in chosen:
            value = chosen[name]
            text = dict(options).get(value, value)
        elif value in (["$__all"], "$__all"):
            value, text = variable.get("allValue") or [v for v, _ in options], "All"
        elif value is None:
            value, text = options[0] if options else ("", "")
        out[name] = {
            "name": name,
            "label": variable.get("label") or name,
            "value": value,
            "text": text,
            "hidden": variable.get("hide", 0) == 2,
            "all": text == "All",
            "options": options[:50],
        }
    return out


def documents() -> dict[str, dict[str, Any]]:
    """The dashboards as they are shipped, by uid."""
    from dashboards import build

    return {uid: json.loads(json.dumps(document)) for uid, document in build.documents().items()}
