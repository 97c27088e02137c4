"""Rows of an answer as Grafana's ClickHouse data source hands them to a panel: a frame, and its step from long to wide.

A frame is what the data source's backend (grafana-plugin-sdk-go) makes of a result. A time series that has string or
boolean columns is long; LongToWide makes each combination of their values a series with those values as labels, over
the times that some row has. This follows what that function documents, errors too; the data source fills with null.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Literal

Fill = Literal["null", "previous"] | float


class NotWide(ValueError):
    """The data source would answer with this error instead of data."""


@dataclass(slots=True)
class Field:
    """A column. `type`: time, number, string, boolean or other; times are ms since 1970."""

    name: str
    type: str
    values: list[Any]
    labels: dict[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """As the page takes it."""
        out: dict[str, Any] = {"name": self.name, "type": self.type, "values": self.values, "config": {}}
        return out | ({"labels": self.labels} if self.labels else {})


def kind(type_name: str) -> str:
    """Grafana's type for one of ClickHouse's, as the data source converts it."""
    bare = re.sub(r"^(LowCardinality|Nullable|SimpleAggregateFunction)\((?:\w+, )?(.*)\)$", r"\2", type_name)
    if bare != type_name:
        return kind(bare)
    if re.match(r"Date", bare):
        return "time"
    if bare == "Bool":
        return "boolean"
    if re.match(r"U?Int\d|Float|Decimal|BFloat", bare):
        return "number"
    if re.match(r"String|FixedString|Enum|UUID|IPv[46]", bare):
        return "string"
    return "other"


def fields(names: Sequence[str], types: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Field]:
    """A result's columns."""
    return [
        Field(name, kind(of), [_value(row[i], kind(of)) for row in rows])
        for i, (name, of) in enumerate(zip(names, types, strict=True))
    ]


def _value(value: Any, as_kind: str) -> Any:
    if value is None:
        return None
    if as_kind == "time":
        if not isinstance(value, datetime):
            assert isinstance(value, date)
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp() * 1000)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and not (abs(value) < float("inf")):
        return None  # JSON has neither; a chart draws neither
    if isinstance(value, IPv4Address | IPv6Address) or as_kind == "string":
        return str(value)
    return value


def series(frame: list[Field], fill: Fill = "null") -> list[Field]:
    """A frame that was asked for as a time series; empty for one without rows. NotWide."""
    if not frame or not frame[0].values:
        return []
    factors = [f for f in frame if f.type in ("string", "boolean")]
    times = [f for f in frame if f.type == "time"]
    counted = [f for f in frame if f not in factors and f is not (times[0] if times else None)]
    if not times or not counted or not factors:
        return frame
    return _wide(times[0], factors, counted, fill)


def _wide(time: Field, factors: list[Field], counted: list[Field], fill: Fill) -> list[Field]:
    if len({f.name for f in factors}) < len(factors):
        raise NotWide(f"duplicate key in labels: {[f.name for f in factors]}")
    at: list[int] = []
    found: dict[tuple[str, ...], list[Field]] = {}
    for row, now in enumerate(time.values):
        if now is None:
            raise NotWide("can not convert to wide series, input has null time values")
        if at and now < at[-1]:
            raise NotWide("long series must be sorted ascending by time to be converted")
        if not at or now > at[-1]:
            at.append(now)
            for series_ in found.values():
                for one in series_:
                    one.values.append(_missing(one.values, fill))
        key = tuple(_word(f.values[row]) for f in factors)
        if key not in found:
            labels = {f.name: word for f, word in zip(factors, key, strict=True)}
            found[key] = [Field(f.name, f.type, [], dict(labels)) for f in counted]
            for one in found[key]:
                for _ in at:
                    one.values.append(_missing([], fill))
        for one, source in zip(found[key], counted, strict=True):
            one.values[-1] = source.values[row]
    flat = [one for series_ in found.values() for one in series_]
    flat.sort(key=lambda one: (one.name, *one.labels.values()))
    return [Field(time.name, "time", at), *flat]


def _word(value: Any) -> str:
    """A label: what is not there is the empty one."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _missing(before: list[Any], fill: Fill) -> Any:
    match fill:
        case "null":
            return None
        case "previous":
            return before[-1] if before else None
        case _:
            return fill
