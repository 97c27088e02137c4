"""Roll-ups by the minute: probes_1m, trace_points_1m, drop_points_1m, made of the records every half minute.

What has landed since a roll-up last looked says which minutes have something new; each of these is worked out anew and
whole. So late records are in, a repeated token changes nothing, and a run that was killed is simply done again: how far
it looked is written down after its rows. The landing time is stamped when an insert begins, and its rows are seen when
it ends, so each run looks OVERLAP_S further back than the last one got.

The owner of the embedded engine rolls up by itself (`Roller`); beside a ClickHouse server or cluster
`python -m warehouse.rollups CONFIG.toml` does (the settings of `python -m warehouse.migrate`), once per shard.
"""

from __future__ import annotations

import signal
import sys
import threading
from dataclasses import dataclass

import structlog

from contract.documents import DocumentError
from service import logs
from service.settings import load, refuse
from warehouse.client import Refused, Unavailable, connect
from warehouse.migrate import Database, MigrateSettings, Remote

EVERY_S = 30.0
OVERLAP_S = 60
# A run looks at so much of landing time at once: a long backlog takes many steps, and none of them much memory.
STEP_S = 3600
MAX_STEPS = 12

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Rollup:
    """`table` is filled from `source`: for each minute and `keys` the `values`, the first of which counts records."""

    table: str
    source: str
    keys: tuple[str, ...]
    values: tuple[tuple[str, str], ...]


ROLLUPS = (
    Rollup(
        "rolled_probes",
        "probes",
        ("outcome", "prober", "vip_id"),
        (("probes", "count()"), ("rtt_ns", "quantilesTDigestStateIf(0.5, 0.99)(rtt_ns, rtt_ns > 0)")),
    ),
    Rollup(
        "rolled_trace_points",
        "trace_points",
        ("hop", "node", "worker"),
        (("points", "count()"), ("residence_ns", "quantilesTDigestState(0.5, 0.99)(residence_ns)")),
    ),
    Rollup(
        "rolled_drop_points",
        "drop_points",
        ("reason", "hop", "node", "worker"),
        (("points", "count()"), ("vips", "uniqState(vip_id)")),
    ),
)


def roll(database: Database, name: str) -> dict[str, int]:
    """Bring every roll-up of the database `name` up to now; how many steps each took. Errors as the database has them.

    After MAX_STEPS steps the rest of a backlog is left to the next call.
    """
    marks = database.rows(f"SELECT name, toUnixTimestamp64Micro(through) FROM {name}.rolled FINAL")
    looked = {str(table): int(through_us) for table, through_us in marks}
    return {r.table: _roll(database, name, r, looked.get(r.table, 0)) for r in ROLLUPS}


def _roll(database: Database, name: str, rollup: Rollup, through_us: int) -> int:
    for step in range(MAX_STEPS):
        # A clock that was set back must not hide what lands now: then the last minute by the new time is looked at.
        found = database.rows(
            f"SELECT toUnixTimestamp64Micro(min(landed)), toUnixTimestamp64Micro(now64(6)), count() "
            f"FROM {name}.{rollup.source} WHERE landed > "
            f"least({_time(through_us)}, now64(6)) - toIntervalSecond({OVERLAP_S})"
        )
        first_us, now_us, count = (int(x) for x in found[0])
        if not count:
            return step
        last_us = min(first_us + STEP_S * 1_000_000, now_us)
        database.command(statement(name, rollup, first_us, last_us))
        database.command(f"INSERT INTO {name}.rolled (name, through) SELECT '{rollup.table}', {_time(last_us)}")
        if last_us == now_us:
            return step + 1
        through_us = last_us
    return MAX_STEPS


def statement(name: str, rollup: Rollup, first_us: int, last_us: int) -> str:
    """The INSERT of every minute for which something landed between these times [us since 1970]."""
    minute = "toStartOfMinute(toDateTime(ts))"
    keys = ", ".join(rollup.keys)
    values = ", ".join(f"{what} AS {column}" for column, what in rollup.values)
    columns = ", ".join(column for column, _ in rollup.values)
    landed = f"SELECT {minute} FROM {name}.{rollup.source} WHERE landed BETWEEN {_time(first_us)} AND {_time(last_us)}"
    return (
        f"INSERT INTO {name}.{rollup.table} (minute, {keys}, {columns}) "
        f"SELECT {minute} AS minute, {keys}, {values} FROM {name}.{rollup.source} "
        # The bounds let the engine pass over parts of other times.
        f"WHERE ts >= (SELECT min(ts) - toIntervalMinute(1) FROM {name}.{rollup.source} "
        f"WHERE landed BETWEEN {_time(first_us)} AND {_time(last_us)}) "
        f"AND minute IN ({landed}) GROUP BY minute, {keys}"
    )


def _time(us: int) -> str:
    return f"fromUnixTimestamp64Micro({us}, 'UTC')"


class Roller(threading.Thread):
    """Rolls up every EVERY_S seconds until `end`. What goes wrong is said once, and so is that it works again."""

    def __init__(self, database: Database, name: str, every_s: float = EVERY_S) -> None:
        super().__init__(name="roll-ups", daemon=True)
        self._database, self._database_name, self._every_s = database, name, every_s
        self._ending = threading.Event()

    def run(self) -> None:
        failing = False
        while not self._ending.wait(self._every_s):
            try:
                roll(self._database, self._database_name)
            except Exception as error:  # what the engine or a driver says: the next run does the same minutes again
                if not failing:
                    log.warning("roll-ups fail", problem=str(error)[:500])
                failing = True
            else:
                if failing:
                    log.info("roll-ups work again")
                failing = False

    def end(self) -> None:
        """Stop after the run that is under way; returns when it is over."""
        self._ending.set()
        if self.is_alive():
            self.join()


def main(arguments: list[str]) -> int:
    """Roll up on the server that a configuration file names, until SIGTERM. 2 for a bad configuration."""
    if len(arguments) != 1:
        print("usage: python -m warehouse.rollups CONFIG.toml", file=sys.stderr)
        return 2
    try:
        settings = load(arguments[0], MigrateSettings, "TGW_ROLLUPS_")
    except DocumentError as error:
        refuse(error)
    logs.configure("rollups", "INFO")
    try:
        client = connect(settings.warehouse)
    except (Unavailable, Refused) as error:
        print(f"{settings.warehouse.url}: {error}", file=sys.stderr)
        return 1
    roller = Roller(Remote(client), settings.warehouse.database)
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    roller.start()
    ending.wait()
    roller.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
