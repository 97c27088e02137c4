"""SQL that counts records: one by one where steps are short, from the roll-ups by the minute where they are not.

A roll-up is made twice a minute, so the newest minutes are always counted from the records.
"""

from __future__ import annotations

from collections.abc import Sequence

from dashboards.sql import STEP, in_steps, step

# Steps from this length on are made of whole minutes.
ROLLED_FROM_S = 60
# A minute is rolled up for good so long after it began, whatever lands in time.
ROLLED_AFTER_S = 180
# From when on records are counted.
_FROM = f"if({STEP} < {ROLLED_FROM_S}, toDateTime(0), toStartOfMinute(now() - INTERVAL {ROLLED_AFTER_S} SECOND))"
# What a roll-up calls its count, and the times whose quantiles it keeps.
COUNTS = {"probes": ("probes", "rtt_ns"), "trace_points": ("points", "residence_ns"), "drop_points": ("points", "")}


def counts(table: str, keys: Sequence[str], condition: str, *, digest: bool = False, whole: bool = False) -> str:
    """A query that gives (step, keys, n, last[, digest]) of the records in the steps of a chart; several rows a key.

    `n`: how many; `last`: when the last of them was, to the minute where they are rolled up; `digest`: merge it with
    QUANTILES. `whole`: of the whole time range, all in step 0.
    """
    count, times = COUNTS[table]
    named = "".join(f", {key}" for key in keys)
    kept = f", quantilesTDigestState(0.5, 0.99)({times}) AS digest" if digest else ""
    merged = f", quantilesTDigestMergeState(0.5, 0.99)({times}) AS digest" if digest else ""

    def part(column: str) -> tuple[str, str]:
        if whole:
            return "toUInt32(0)", f"{column} >= $__fromTime AND {column} <= $__toTime"
        return step(column), in_steps(column)

    (raw, in_raw), (rolled, in_rolled) = part("ts"), part("minute")
    return f"""
    SELECT {raw} AS step{named}, count() AS n, toDateTime(max(ts), 'UTC') AS last{kept} FROM {table}
    WHERE ts >= {_FROM} AND {in_raw} AND {condition} GROUP BY step{named}
    UNION ALL
    SELECT {rolled} AS step{named}, sum({count}) AS n, max(minute) AS last{merged} FROM {table}_1m
    WHERE minute < {_FROM} AND {in_rolled} AND {condition} GROUP BY step{named}
    """.strip()


QUANTILES = "quantilesTDigestMerge(0.5, 0.99)(digest)"


def newest() -> str:
    """A query that gives `newest`, when the newest record within a day before the end of the range was made.

    To the minute where that is more than ten minutes before.
    """
    parts = []
    for table in COUNTS:
        parts.append(
            f"SELECT max(ts) AS newest FROM {table} WHERE ts > $__toTime - INTERVAL 11 MINUTE AND ts <= $__toTime_ms"
        )
        parts.append(
            f"SELECT toDateTime64(max(minute) + 59, 9, 'UTC') FROM {table}_1m "
            "WHERE minute > $__toTime - INTERVAL 1 DAY AND minute <= $__toTime - INTERVAL 11 MINUTE"
        )
    return " UNION ALL ".join(f"{part} HAVING count() > 0" for part in parts)
