"""Panels in the one style that all dashboards share: colours by meaning, a word beside each, units, a description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from dashboards.source import REF, Query

# The palette of Okabe and Ito, which people with any kind of colour vision can tell apart, shifted a little so that
# white on each, and each on white and on black, has a contrast of 3 at least. A colour never says anything alone: there
# is a word or a number beside it. ODD is to be looked at, and no fault yet. NEUTRAL is what is not known, and stands
# first in all thresholds, because Grafana takes the first colour for "no data".
GOOD, WARN, BAD, CALM, OTHER, ODD = "#009E73", "#B98400", "#C04800", "#2878BD", "#A8559A", "#F0E442"
NEUTRAL = "#6E6E78"

# What a word means is told by the same colour everywhere.
OUTCOMES = {"answered": GOOD, "refused": WARN, "silent": BAD, "unsent": OTHER}
STATES = {
    "open": BAD,
    "acting": WARN,
    "verifying": CALM,
    "mitigated": OTHER,
    "closed": GOOD,
}
MIGRATIONS = {
    "planned": CALM,
    "configuring": CALM,
    "announcing": CALM,
    "verifying": CALM,
    "done": GOOD,
    "dry_run": NEUTRAL,
    "refused": WARN,
    "rolled_back": WARN,
    "failed": BAD,
}
# What is shown instead of the word.
SAID = {
    "mitigated": "mitigated: traffic clean, fault still there",
    "failed": "FAILED",
    "refused": "refused by a rail",
    "rolled_back": "rolled back",
    "dry_run": "dry run, nothing moved",
    "closed": "closed",
}

# Units: a rate, whatever is counted; a time to the second, or to the millisecond.
RATE, SECOND, MILLISECOND = "suffix:/s", "time:YYYY-MM-DD HH:mm:ss", "time:YYYY-MM-DD HH:mm:ss.SSS"

Step = tuple[float | None, str]


def thresholds(*steps: Step) -> builders.ThresholdsConfig:
    """Absolute thresholds over NEUTRAL: (value from which, colour)."""
    return (
        builders.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=v, color=colour) for v, colour in ((None, NEUTRAL), *steps)])
    )


def words(colours: Mapping[str, str], said: Mapping[str, str] = SAID) -> models.ValueMap:
    """Each word with its colour."""
    result = models.ValueMappingResult
    return models.ValueMap(
        {w: result(text=said.get(w, w), color=c, index=i) for i, (w, c) in enumerate(colours.items())}
    )


def matching(*patterns: tuple[str, str]) -> list[models.RegexMap]:
    """Colours for texts: (regular expression of JavaScript, colour), the first that matches counts.

    In slashes, because Grafana takes a pattern without them for the whole text.
    """
    return [
        models.RegexMap(models.DashboardRegexMapOptions(f"/{p}/", models.ValueMappingResult(color=colour, index=i)))
        for i, (p, colour) in enumerate(patterns)
    ]


# For a text like "20 of 22": one colour when both are the same, another when not.
OF = matching((r"^(\d+) of \1$", GOOD), (r"^\d+ of \d+$", WARN))


def number(
    title: str,
    description: str,
    sql: str,
    unit: str,
    steps: builders.ThresholdsConfig | None = None,
    width: int = 4,
    decimals: int | None = None,
    mappings: Sequence[models.ValueMap | models.RegexMap] = (),
    nothing: str = "no data",
    height: int = 4,
) -> stat.Panel:
    """One number, or a text (unit "string"). `sql` gives one row with one column, NULL where it is not known."""
    text = unit == "string"
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(REF)
        .with_target(Query(sql, table=True))
        .unit(unit)
        .thresholds(steps or thresholds())
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("/.*/" if text else ""))
        .color_mode(common_models.BigValueColorMode.BACKGROUND_SOLID)
        .graph_mode(common_models.BigValueGraphMode.NONE)
        .text_mode(common_models.BigValueTextMode.VALUE)
        .no_value(nothing)
        .height(height)
        .span(width)
    )
    if mappings:
        panel = panel.mappings(list(mappings))
    return panel.decimals(decimals) if decimals is not None else panel


def series(
    title: str,
    description: str,
    sql: str,
    unit: str,
    label: str = "",
    colours: Mapping[str, str] | None = None,
    width: int = 12,
    height: int = 8,
    bars: bool = False,
    finest: str = "5s",
    nothing: str = "no data",
    low: bool = False,
    shades: str = "",
    links: Mapping[str, str] | None = None,
) -> timeseries.Panel:
    """Lines over time, or stacked bars where a series is sparse.

    `sql` gives (time, `label`, value) ordered by time, or without `label` a column for each series. `colours`: by
    column. `finest`: no step is shorter; probes are sent no more often than "5s", and "1m" is rolled up. `low`: the
    lowest is the worst, so it comes first. `shades`: of which colour the series are, where each of them means the same.
    `links`: title -> URL.
    """
    scheme = builders.FieldColor().mode(
        models.FieldColorModeId.SHADES if shades else models.FieldColorModeId.PALETTE_CLASSIC
    )
    if shades:
        scheme = scheme.fixed_color(shades)
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(REF)
        .with_target(Query(sql))
        .unit(unit)
        .min(0)
        .color_scheme(scheme)
        .interval(finest)
        .max_data_points(120 if bars else 240)
        .draw_style(common_models.GraphDrawStyle.BARS if bars else common_models.GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(80 if bars else 0)
        # A point between two gaps has no line: it is drawn as a point.
        .show_points(common_models.VisibilityMode.NEVER if bars else common_models.VisibilityMode.AUTO)
        .point_size(4)
        # A gap is a gap: no data is not zero, and not what was before.
        .span_nulls(False)
        .no_value(nothing)
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.TABLE)
            .placement(common_models.LegendPlacement.RIGHT)
            .show_legend(True)
            .calcs(["min" if low else "max", "lastNotNull"])
            .sort_by("Min" if low else "Max")
            .sort_desc(not low)
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(common_models.TooltipDisplayMode.MULTI)
            .sort(common_models.SortOrder.ASCENDING if low else common_models.SortOrder.DESCENDING)
        )
        .height(height)
        .span(width)
    )
    if bars:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if label:
        # Grafana would call it "value ld-a1".
        panel = panel.display_name(f"${{__field.labels.{label}}}")
    for word, colour in (colours or {}).items():
        panel = panel.override_by_name(
            word, [models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})]
        )
    return panel.data_links([link(name, url) for name, url in links.items()]) if links else panel


def link(title: str, url: str) -> builders.DashboardLink:
    """A link from a point of a chart."""
    return builders.DashboardLink(title).url(url)


def states(
    title: str,
    description: str,
    sql: str,
    label: str,
    codes: Mapping[int, tuple[str, str]],
    width: int = 24,
    height: int = 11,
    links: Mapping[str, str] | None = None,
) -> statetimeline.Panel:
    """What state each of several things was in, over time. `codes`: value -> (word, colour); NULL is a gap."""
    mapping = models.ValueMap(
        {
            str(code): models.ValueMappingResult(text=word, color=colour, index=i)
            for i, (code, (word, colour)) in enumerate(codes.items())
        }
    )
    panel = (
        statetimeline.Panel()
        .title(title)
        .description(description)
        .datasource(REF)
        .with_target(Query(sql))
        .display_name(f"${{__field.labels.{label}}}")
        .mappings([mapping])
        .thresholds(thresholds())
        .interval("5s")
        # An hour is drawn by the minute, which is rolled up.
        .max_data_points(60)
        .merge_values(True)
        .show_value(common_models.VisibilityMode.AUTO)
        .row_height(0.85)
        .line_width(0)
        .fill_opacity(85)
        .no_value("no data")
        .legend(
            common.VizLegendOptions()
            .display_mode(common_models.LegendDisplayMode.LIST)
            .placement(common_models.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.SINGLE))
        .height(height)
        .span(width)
    )
    return panel.data_links([link(name, url) for name, url in links.items()]) if links else panel


@dataclass(frozen=True, slots=True)
class Column:
    """How a column of a table is shown.

    `width`: pixels, 0 for what is left; `wrap`: long text goes on in the next line; `link`: (title, URL); `words`:
    word -> colour, or (pattern, colour) each as in `matching`; `hidden`: there for links alone.
    """

    title: str = ""
    width: int = 0
    unit: str = ""
    wrap: bool = False
    hidden: bool = False
    link: tuple[str, str] | None = None
    words: Mapping[str, str] | Sequence[tuple[str, str]] = ()

    def properties(self) -> list[models.DynamicConfigValue]:
        """As Grafana's overrides say it."""
        value = models.DynamicConfigValue
        # The panel's own "no value" is for a table without rows, and would stand in empty cells too.
        out = [value(id_val="noValue", value="-")]
        if self.title:
            out.append(value(id_val="displayName", value=self.title))
        if self.width:
            out.append(value(id_val="custom.width", value=self.width))
        if self.unit:
            out.append(value(id_val="unit", value=self.unit))
        if self.words:
            known = [words(self.words)] if isinstance(self.words, Mapping) else matching(*self.words)
            out.append(value(id_val="mappings", value=known))
            out.append(value(id_val="custom.cellOptions", value={"type": "color-text", "wrapText": self.wrap}))
        elif self.wrap:
            out.append(value(id_val="custom.cellOptions", value={"type": "auto", "wrapText": True}))
        if self.hidden:
            out.append(value(id_val="custom.hidden", value=True))
        if self.link:
            out.append(value(id_val="links", value=[{"title": self.link[0], "url": self.link[1]}]))
        return out


def when(title: str = "", precise: bool = False, fill: bool = False) -> Column:
    """A column with a time, wide enough for it; `fill`: or for what is left."""
    width = 0 if fill else 195 if precise else 165
    return Column(title=title, width=width, unit=MILLISECOND if precise else SECOND)


def rows(
    title: str,
    description: str,
    sql: str,
    columns: Mapping[str, Column],
    width: int = 24,
    height: int = 8,
    nothing: str = "nothing in this time range",
) -> table.Panel:
    """A table. `columns`: how those of its columns are shown that need saying."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(REF)
        .with_target(Query(sql, table=True))
        .no_value(nothing)
        # What a word is not known for is grey, not the green that Grafana begins with.
        .thresholds(thresholds())
        .min_width(90)
        .cell_height(common_models.TableCellHeight.SM)
        .height(height)
        .span(width)
    )
    for name, column in columns.items():
        panel = panel.override_by_name(name, column.properties())
    return panel
