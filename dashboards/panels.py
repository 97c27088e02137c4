"""Panels in the one style that all dashboards share: colours by meaning, units, a description on each."""

from __future__ import annotations

from grafana_foundation_sdk.builders import common, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from dashboards.source import REF, Query

GOOD, WARN, BAD, CALM, OTHER = "green", "orange", "red", "blue", "purple"

# What a word means is told by the same colour everywhere.
COLOURS = {
    "answered": GOOD,
    "refused": WARN,
    "silent": BAD,
    "unsent": OTHER,
    "open": BAD,
    "acting": WARN,
    "verifying": CALM,
    "closed": GOOD,
}


def thresholds(*steps: tuple[float | None, str]) -> builders.ThresholdsConfig:
    """Absolute thresholds: (value from which, colour); the first value is None."""
    return (
        builders.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in steps])
    )


def number(
    title: str,
    description: str,
    sql: str,
    unit: str,
    steps: builders.ThresholdsConfig,
    width: int = 4,
    decimals: int | None = None,
) -> stat.Panel:
    """One number. `sql` gives one row with one column."""
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(REF)
        .with_target(Query(sql, table=True))
        .unit(unit)
        .thresholds(steps)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .color_mode(common_models.BigValueColorMode.BACKGROUND)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .no_value("no data")
        .height(4)
        .span(width)
    )
    return panel.decimals(decimals) if decimals is not None else panel


def series(
    title: str, description: str, sql: str, unit: str, width: int = 12, stacked: bool = False, height: int = 8
) -> timeseries.Panel:
    """Lines over time. `sql` gives (time, name, value) ordered by time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(REF)
        .with_target(Query(sql))
        .unit(unit)
        .min(0)
        .line_width(1)
        .fill_opacity(40 if stacked else 8)
        .show_points(common_models.VisibilityMode.NEVER)
        # A gap is a gap: no data is not zero.
        .span_nulls(False)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.RIGHT)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI))
        .height(height)
        .span(width)
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    for word, colour in COLOURS.items():
        panel = panel.override_by_name(
            word, [models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})]
        )
    return panel


def rows(
    title: str,
    description: str,
    sql: str,
    width: int = 24,
    height: int = 8,
    links: dict[str, str] | None = None,
    units: dict[str, str] | None = None,
) -> table.Panel:
    """A table. `links`: column -> URL with ${__value.raw}; `units`: column -> unit."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(REF)
        .with_target(Query(sql, table=True))
        .no_value("nothing in this time range")
        .height(height)
        .span(width)
    )
    mapping = {
        "type": "value",
        "options": {word: {"color": colour, "index": i} for i, (word, colour) in enumerate(COLOURS.items())},
    }
    for column in ("outcome", "state"):
        panel = panel.override_by_name(
            column,
            [
                models.DynamicConfigValue(id_val="mappings", value=[mapping]),
                models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
            ],
        )
    for column, url in (links or {}).items():
        panel = panel.override_by_name(
            column, [models.DynamicConfigValue(id_val="links", value=[{"title": "open", "url": url}])]
        )
    for column, unit in (units or {}).items():
        panel = panel.override_by_name(column, [models.DynamicConfigValue(id_val="unit", value=unit)])
    return panel
