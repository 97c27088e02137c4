"""The collector without threads, sockets or a clock of its own.

What keeps every record exactly once, whenever the process is killed:

1. Records are copied from the taps into one batch, and the batch is made durable (`store.put`).
2. Only then are the taps' read cursors moved.
3. A batch is deleted only after the warehouse has taken it.

Killed between 1 and 2: at the next start the batch says how far each tap is safe, and cursors are moved before
anything is read. Killed between the warehouse's taking and 3: the batch is delivered again with the same token, and the
warehouse drops it. A batch's file is never changed, so its token and contents never differ.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from collector import columns, spool
from collector.settings import Intervals
from collector.spool import STATE, Batch, Segment, SpoolError, Store
from collector.taps import Alive, Directory, Tap, TapKey
from contract.records import POINT_SIZE
from contract.tap import TapError, TapState

Say = Callable[..., None]
# A batch becomes one insert a table, and one block there, or a token would not cover it.
BATCH_RECORDS = 65_536
# Room that feeds leave to records when the spool fills up.
_FEEDS_SHARE = 0.5
# So many batches waiting mean that shipping lags.
_BEHIND = 4
_CATCH_UP_S = 0.02
# No time beyond the year 2262 fits the warehouse.
_LATEST_NS = 2**63 - 1
# A file that is no tap may become one: its writer was not finished, or somebody puts another in its place.
_LOOK_AGAIN_NS, _LOOK_AGAIN_AT_LAST_NS = 1_000_000_000, 30_000_000_000


@dataclass(slots=True)
class _Refusal:
    """A file that is no tap as it is: `stamp` says of which file that was said; it is looked at again at `next_ns`."""

    stamp: object
    next_ns: int
    wait_ns: int = _LOOK_AGAIN_NS


@dataclass(slots=True)
class _Life:
    """What the collector remembers of a tap's life besides the tap."""

    tap: Tap
    state: TapState
    alive: bool = True
    gone_since: int | None = None
    heartbeat_ns: int = 0
    # It went on beating after its process was taken for gone: a step of the wall clock can make it look so.
    beats_on: bool = False
    counters: Any = None


def _life_name(key: TapKey) -> str:
    return f"{key[0]}/{key[1]}/{key[2]}"


class Collector:
    """Reads taps into the spool, and keeps the queue of batches to ship."""

    def __init__(
        self,
        directory: Directory,
        store: Store,
        *,
        spool_max_bytes: int,
        intervals: Intervals,
        alive: Alive,
        say: Say,
        now_ns: int,
    ) -> None:
        """Takes up the spool of an earlier life. `say(event, **facts)` is called for what people should know."""
        self.counts: Counter[str] = Counter()
        self._directory = directory
        self._store = store
        self._max_bytes = spool_max_bytes
        self._intervals = intervals
        self._alive = alive
        self._say = say
        self._lives: dict[str, _Life] = {}
        self._refused: dict[str, _Refusal] = {}
        self._unopened: set[str] = set()
        self._pending: dict[str, tuple[Segment, ...]] = {}
        self._reported_lost: dict[str, int] = {}
        self._safe: dict[TapKey, int] = {}
        self._torn: list[tuple[str, tuple[Segment, ...] | None]] = []
        self._number = 0
        self._first = 0
        self._next_poll = now_ns
        self._next_feeds = now_ns
        self._next_counters = now_ns
        self._full = False
        self._recover()

    # Shipping

    def pending(self) -> list[str]:
        """Names of the batches to ship, oldest first."""
        return list(self._pending)

    def load(self, name: str) -> bytes | None:
        """The bytes of a pending batch; None when it turned out to be torn (then it is no longer pending)."""
        data = self._store.get(name)
        try:
            spool.decode(data)
        except SpoolError as error:
            self._tear(name, error)
            return None
        return data

    def shipped(self, name: str) -> None:
        """The warehouse has taken a batch."""
        self._store.delete(name)
        segments = self._pending.pop(name, ())
        self.counts["batches_shipped"] += 1
        self.counts["records_shipped"] += sum(s.kept for s in segments)

    # Reading

    def turn(self, now_ns: int, *, at_once: bool = False) -> int:
        """Do what is due (read in any case, when `at_once`); when to turn again [ns since 1970]."""
        if at_once or _due(now_ns, self._next_poll, self._intervals.poll_behind_s):
            self._discover(now_ns)
            self._read(now_ns)
            self._retire(now_ns)
            self._next_poll = now_ns + round(self._pause_s() * 1e9)
        return self._next_poll

    def close(self) -> None:
        """Let the taps go."""
        for life in self._lives.values():
            life.tap.close()
        self._lives.clear()

    def _pause_s(self) -> float:
        """Until the next reading: short when a batch could not hold all, long while shipping lags."""
        waiting = [(x.state.write_cursor - x.tap.cursor, x.tap.header.capacity) for x in self._lives.values()]
        if any(count > capacity // 4 for count, capacity in waiting):
            return self._intervals.poll_s if self._full else min(_CATCH_UP_S, self._intervals.poll_s)
        return self._intervals.poll_behind_s if len(self._pending) >= _BEHIND else self._intervals.poll_s

    def _discover(self, now_ns: int) -> None:
        found = self._directory.names()
        for name, stamp in found.items():
            if name in self._lives:
                continue
            before = self._refused.get(name)
            if before is not None and before.stamp == stamp and not _due(now_ns, before.next_ns, before.wait_ns / 1e9):
                continue
            self._open(name, stamp, now_ns)
        for name in set(self._refused) - set(found):
            del self._refused[name]
        for name, life in list(self._lives.items()):
            # Someone deleted the file: what is mapped can still be read to its end.
            if name not in found and life.tap.cursor == life.state.write_cursor and life.gone_since is not None:
                self._forget(name)

    def _open(self, name: str, stamp: object, now_ns: int) -> None:
        try:
            buffer = self._directory.open(name)
        except FileNotFoundError:
            return
        except OSError as error:
            # The file may be fine: it is tried again each time, and complained about once.
            if name not in self._unopened:
                self._unopened.add(name)
                self._say("tap cannot be opened", tap=name, problem=str(error))
            return
        self._unopened.discard(name)
        problem = ""
        try:
            tap = Tap(name, buffer)
            state = tap.state()
        except TapError as error:
            problem = str(error)
        if problem:
            buffer.close()
            self._refuse(name, stamp, problem, now_ns)
            return
        if self._refused.pop(name, None) is not None:
            self._say("tap taken after all", tap=name)
        safe = self._safe.pop(tap.key, 0)
        if tap.cursor < safe <= state.write_cursor:
            tap.advance(safe)
        self._lives[name] = _Life(tap, state)

    def _refuse(self, name: str, stamp: object, why: str, now_ns: int) -> None:
        before = self._refused.get(name)
        if before is not None and before.stamp == stamp:
            before.wait_ns = min(2 * before.wait_ns, _LOOK_AGAIN_AT_LAST_NS)
            before.next_ns = now_ns + before.wait_ns
            return
        self._refused[name] = _Refusal(stamp, now_ns + _LOOK_AGAIN_NS)
        self.counts["taps_refused"] += 1
        self._say("tap refused", tap=name, problem=why)

    def _forget(self, name: str) -> None:
        life = self._lives.pop(name)
        if self._reported_lost.pop(_life_name(life.tap.key), None) is not None:
            self._save_state()
        life.tap.close()

    def _read(self, now_ns: int) -> None:
        room = self._max_bytes - self._store.used()
        segments, raws, losses, lost = [], [], [], {}
        advances: list[tuple[Tap, int]] = []
        budget = min(BATCH_RECORDS, max(0, room - 4096) // 2 // POINT_SIZE)
        for name, life in self._in_turn():
            tap = life.tap
            if (state := self._state(name, life, now_ns)) is None:
                continue
            key = _life_name(tap.key)
            if (total := state.lost) > (reported := self._reported_lost.get(key, 0)):
                losses.append([now_ns, *_named(tap.key), state.write_cursor, total - reported, "ring_full"])
                lost[key] = total
            end = min(state.write_cursor, tap.cursor + budget)
            if end == tap.cursor:
                continue
            piece = tap.read(end)
            budget -= piece.count
            kept = piece.count - piece.bad
            if piece.bad:
                losses.append([now_ns, *_named(tap.key), piece.first, piece.bad, "corrupt"])
            node, boot_id, worker = tap.key
            segments.append(
                Segment(node, boot_id, worker, tap.header.role, tap.header.record_kind, piece.first, piece.count, kept)
            )
            raws.append(piece.raw)
            advances.append((tap, end))
        losses += self._torn_losses(now_ns)
        rows: dict[str, list[list[Any]]] = {"losses": losses} if losses else {}
        if room > self._max_bytes * (1 - _FEEDS_SHARE):
            rows |= self._watch(now_ns, {tap.key: end for tap, end in advances})
        if not segments and not rows:
            self._note_room(now_ns, room)
            return
        torn = tuple(name for name, _ in self._torn)
        batch = Batch(now_ns, tuple(segments), b"".join(raws), rows, lost, torn)
        if not self._spool(batch, room):
            return
        for tap, end in advances:
            tap.advance(end)
        self.counts["records_read"] += batch.records

    def _in_turn(self) -> list[tuple[str, _Life]]:
        """The taps, beginning with another one each time: a busy tap may use up a batch, but not every batch."""
        lives = list(self._lives.items())
        self._first = (self._first + 1) % max(len(lives), 1)
        return lives[self._first :] + lives[: self._first]

    def _state(self, name: str, life: _Life, now_ns: int) -> TapState | None:
        """The tap's present state; None, and the tap is refused, when it is broken."""
        try:
            life.state = life.tap.state()
        except TapError as error:
            problem = str(error)
        else:
            return life.state
        self._lives.pop(name).tap.close()
        self._refuse(name, self._directory.names().get(name), problem, now_ns)
        return None

    def _spool(self, batch: Batch, room: int) -> bool:
        data = batch.encode()
        self._number = max(self._number + 1, batch.created_ns)
        name = spool.name_of(self._number, batch.records)
        if len(data) > room:
            self._note_room(batch.created_ns, 0)
            return False
        try:
            self._store.put(name, data)
        except OSError as error:
            self.counts["spool_refused"] += 1
            if not self._full:
                self._say("spool cannot be written, records stay in their taps", problem=str(error))
            self._full = True
            return False
        for torn in batch.torn:
            self._store.set_aside(torn)
        self._torn.clear()
        self._pending[name] = batch.segments
        self._note_room(batch.created_ns, room - len(data))
        if batch.lost:
            self._reported_lost |= batch.lost
            self._save_state()
        return True

    def _note_room(self, now_ns: int, room: int) -> None:
        full = room < 8192
        if full and not self._full:
            self.counts["spool_full"] += 1
            self._say("spool is full, taps are read no more until the warehouse takes batches", at_ns=now_ns)
        self._full = full

    # Watching the feeds

    def _watch(self, now_ns: int, ends: Mapping[TapKey, int]) -> dict[str, list[list[Any]]]:
        """What is due of the rows about taps. `ends`: how far the batch that they go with reads each tap."""
        rows: dict[str, list[list[Any]]] = {}
        # What falls due before the middle of the next pause goes with this reading: a batch of its own costs more.
        soon_ns = now_ns + round(self._intervals.poll_s * 5e8)
        if _due(soon_ns, self._next_feeds, self._intervals.feeds_s):
            self._next_feeds = _next_tick(soon_ns, self._intervals.feeds_s)
            if feeds := self._feeds(now_ns, ends):
                rows["feeds"] = feeds
        if _due(soon_ns, self._next_counters, self._intervals.counters_s):
            self._next_counters = _next_tick(soon_ns, self._intervals.counters_s)
            if counters := self._counters(now_ns):
                rows["node_counters"] = counters
        return rows

    def _feeds(self, now_ns: int, ends: Mapping[TapKey, int]) -> list[list[Any]]:
        known: dict[tuple[int, int], bool] = {}
        rows = []
        for life in self._lives.values():
            header, state = life.tap.header, life.state
            process = header.pid, header.created_ns
            if process not in known:
                known[process] = self._alive(*process)
            beating = state.heartbeat_ns != life.heartbeat_ns
            life.beats_on = not known[process] and beating and (life.beats_on or life.gone_since is not None)
            life.heartbeat_ns = state.heartbeat_ns
            life.alive = (known[process] or life.beats_on) and not state.closed
            if life.alive:
                life.gone_since = None
            elif life.gone_since is None:
                life.gone_since = now_ns
            rows.append(
                [
                    now_ns,
                    *_named(life.tap.key),
                    columns.role_name(header.role),
                    min(state.heartbeat_ns, _LATEST_NS),
                    state.write_cursor,
                    # True once the row is in: it goes in after all records of its batch and of those before it.
                    ends.get(life.tap.key, life.tap.cursor),
                    state.lost,
                    state.suppressed,
                    int(life.alive),
                ]
            )
        return rows

    def _shipped_up_to(self, tap: Tap) -> int:
        firsts = [s.first for segments in self._pending.values() for s in segments if _key(s) == tap.key]
        return min(firsts, default=tap.cursor)

    def _counters(self, now_ns: int) -> list[list[Any]]:
        rows = []
        for life in self._lives.values():
            if not life.tap.header.role:
                continue  # a prober counts in its records
            values = life.tap.counters()
            before = life.counters
            changed = values != before if before is not None else values != 0
            life.counters = values
            named = _named(life.tap.key)
            rows += [
                [now_ns, *named, columns.COUNTER_NAMES[i], int(values[i])]
                for i in np.flatnonzero(changed).tolist()
                if i in columns.COUNTER_NAMES
            ]
        return rows

    def _retire(self, now_ns: int) -> None:
        after = round(self._intervals.retire_after_s * 1e9)
        for name, life in list(self._lives.items()):
            if life.gone_since is None or now_ns - life.gone_since < after:
                continue
            # Read again: the writer may have written between our last look and its end.
            if (state := self._state(name, life, now_ns)) is None or state.write_cursor != life.tap.cursor:
                continue
            reported = state.lost == self._reported_lost.get(_life_name(life.tap.key), 0)
            if reported and self._shipped_up_to(life.tap) == life.tap.cursor:
                self._directory.remove(name)
                self._forget(name)
                self.counts["taps_retired"] += 1

    # What an earlier life left, and damage

    def _recover(self) -> None:
        try:
            kept = json.loads(self._store.get(STATE))
        except KeyError:
            kept = {}
        except (ValueError, RecursionError):
            kept = None
        if not isinstance(kept, dict) or not all(isinstance(v, int) for v in kept.values()):
            self._say("what an earlier life kept cannot be read; losses of rings may be reported again", file=STATE)
            kept = {}
        self._reported_lost = kept
        before = dict(self._reported_lost)
        reported: set[str] = set()
        for name in self._store.names():
            self._number = max(self._number, int(name.partition("-")[0]))
            try:
                batch = spool.decode(self._store.get(name))
            except SpoolError as error:
                self._tear(name, error)
                continue
            self._pending[name] = batch.segments
            for segment in batch.segments:
                key = _key(segment)
                self._safe[key] = max(self._safe.get(key, 0), segment.first + segment.count)
            reported |= set(batch.torn)
            for life, total in batch.lost.items():
                self._reported_lost[life] = max(self._reported_lost.get(life, 0), total)
        if self._reported_lost != before:
            self._save_state()
        for name, _ in self._torn:
            if name in reported:
                self._store.set_aside(name)
        self._torn = [t for t in self._torn if t[0] not in reported]

    def _save_state(self) -> None:
        self._store.put(STATE, json.dumps(self._reported_lost).encode())

    def _tear(self, name: str, error: SpoolError) -> None:
        # It is set aside once its loss is written down.
        self._pending.pop(name, None)
        self._torn.append((name, error.segments))
        self.counts["spool_torn"] += 1
        self._say("spool file is torn", file=name, problem=str(error))

    def _torn_losses(self, now_ns: int) -> list[list[Any]]:
        """Loss rows of torn batches, but for ranges that their taps still hold (those are read again)."""
        cursors = {life.tap.key: life.tap.cursor for life in self._lives.values()}
        rows: list[list[Any]] = []
        for name, segments in self._torn:
            if segments is None:
                if count := spool.records_of(name):
                    rows.append([now_ns, "", "", 0, 0, count, "spool_torn"])
                continue
            rows += [
                [now_ns, s.node, s.boot_id, s.worker, s.first, s.kept, "spool_torn"]
                for s in segments
                if s.kept and (cursors.get(_key(s)) is None or cursors[_key(s)] > s.first)
            ]
        return rows


def _due(now_ns: int, at_ns: int, every_s: float) -> bool:
    """Whether a time has come, or lies so far ahead that the clock must have been set back."""
    return now_ns >= at_ns or at_ns - now_ns > 2e9 * every_s


def _next_tick(now_ns: int, every_s: float) -> int:
    """The next whole multiple of an interval: readings that come a little late do not add up to a slower pace."""
    every = round(every_s * 1e9)
    return (now_ns // every + 1) * every


def _key(segment: Segment) -> TapKey:
    return segment.node, segment.boot_id, segment.worker


def _named(key: TapKey) -> tuple[str, str, int]:
    """The columns that name a tap, in the order every table has them: node, boot_id, worker."""
    return key
