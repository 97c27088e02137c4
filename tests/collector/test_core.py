"""Every record reaches the warehouse once, whenever the collector is killed and whatever else goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.settings import Intervals
from contract import records, tap

World = Any  # tests/collector/conftest.py
SECOND = 1_000_000_000


def test_all_is_there_within_a_second_of_being_written(world: World) -> None:
    node = world.writer(capacity=1024)
    prober = world.writer("p1", kind=records.PROBE_KIND, boot=2)
    for _ in range(20):
        node.write(7)
        node.write(1, reason=6)
        prober.write(1)
        world.run(0.5)
        assert world.records() == world.written()
    assert len(world.warehouse.rows["drop_points"]) == 20
    assert len(world.warehouse.rows["probes"]) == 20
    assert world.store.names() == []
    assert world.losses() == {}
    assert node.state.read_cursor == node.state.write_cursor


@pytest.mark.parametrize("again", [0, 3])
def test_killed_at_every_moment_of_a_turn(new_world: Callable[[], World], again: int) -> None:
    """Every single moment, then once more a few moments into the next life."""
    moments = 0
    struck = True
    while struck:
        world = new_world()
        a = world.writer("a", capacity=16)
        b = world.writer("b", kind=records.PROBE_KIND, boot=2, capacity=16)
        a.write(10)
        b.write(3)
        world.run(0.3)
        a.write(20)  # wraps, and 4 find no room
        b.write(5)
        world.run(0.2)
        struck = world.kill_after(moments)
        a.write(2)
        world.kill_after(again)
        b.write(1)
        world.run(1.5)
        assert world.records() == world.written(), f"killed at moment {moments}"
        assert world.losses().get("ring_full", 0) == a.state.lost + b.state.lost
        assert world.store.names() == []
        moments += 1
    assert moments > 10


Step = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 3), st.integers(1, 40)),
    st.tuples(st.just("kill"), st.integers(0, 40), st.just(0)),
    st.tuples(st.just("run"), st.integers(1, 30), st.just(0)),
    st.tuples(st.just("outage"), st.booleans(), st.just(0)),
    st.tuples(st.just("restart"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("full"), st.booleans(), st.just(0)),
)


# The fixture is the class: each example makes its own world.
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(Step, max_size=30))
def test_exactly_once_under_any_history(new_world: Callable[..., World], steps: list[tuple[str, Any, Any]]) -> None:
    world = new_world(spool_max_bytes=1 << 15)
    current = [world.writer(f"n{i}", capacity=32, boot=i + 1) for i in range(3)]
    current.append(world.writer("p", kind=records.PROBE_KIND, capacity=32, boot=4))
    boots = 10
    for what, x, y in steps:
        if what == "write":
            current[x].write(y)
        elif what == "kill":
            world.kill_after(x)
        elif what == "run":
            world.run(x * 0.1)
        elif what == "outage":
            world.warehouse.down = x
        elif what == "full":
            world.store.broken = x
        else:
            boots += 1
            old = current[x]
            old.alive = False
            current[x] = world.writer(old.header.node, kind=old.kind, capacity=32, boot=boots)
    world.warehouse.down = world.store.broken = False
    world.run(12)
    assert world.records() == world.written()
    assert world.losses() == ({"ring_full": n} if (n := sum(w.state.lost for w in world.writers)) else {})
    assert set(world.directory.files) == {w.name for w in current}
    assert world.store.names() == []


def test_two_minutes_without_a_warehouse(world: World) -> None:
    node = world.writer(capacity=4096)
    world.run(1, lambda: node.write(3))
    world.warehouse.down = True
    world.run(120, lambda: node.write(3))
    assert len(world.store.names()) < 80, "while shipping lags the backlog is few large batches"
    assert node.state.lost == 0
    world.warehouse.down = False
    world.run(8, lambda: node.write(3))
    world.run(1)
    assert world.records() == world.written()
    assert len(world.written()) == 3 * 20 * 129
    assert world.losses() == {}
    feeds = world.warehouse.rows["feeds"]
    assert len({r["ts"] for r in feeds}) > 60, "what the feeds were like during the outage is known afterwards"


def test_a_full_spool_stops_the_reading_and_the_tap_counts_what_it_loses(new_world: Callable[..., World]) -> None:
    world = new_world(spool_max_bytes=1 << 16)
    node = world.writer(capacity=256)
    world.warehouse.down = True
    world.run(60, lambda: node.write(2))
    assert world.store.used() <= 1 << 16
    assert node.state.lost > 0
    assert sum(event.startswith("spool is full") for event, _ in world.said) == 1
    world.warehouse.down = False
    world.run(8)
    assert world.records() == world.written()
    assert world.losses() == {"ring_full": node.state.lost}


def test_a_disk_that_refuses_leaves_records_in_their_taps(world: World) -> None:
    node = world.writer()
    node.write(5)
    world.store.broken = True
    world.run(2)
    assert node.state.read_cursor == 0
    assert sum(event.startswith("spool cannot") for event, _ in world.said) == 1
    world.store.broken = False
    world.run(1)
    assert world.records() == world.written()


def spooled(world: World) -> str:
    """A world whose only batch holds records 0..9 of one node and waits for the warehouse."""
    world.warehouse.down = True
    world.node = world.writer()
    world.node.write(10)
    world.step()
    (name,) = world.store.names()
    return str(name)


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-5] + b"\xff" + b[-4:]])
def test_a_torn_spool_file_is_reported_by_what_was_in_it(world: World, damage: Callable[[bytes], bytes]) -> None:
    name = spooled(world)
    world.store.blobs[name] = damage(world.store.blobs[name])
    world.collector = None
    world.warehouse.down = False
    world.node.write(4)
    world.run(2)
    assert [r[2] for r in world.records()] == [10, 11, 12, 13]
    (row,) = world.warehouse.rows["losses"]
    assert (row["node"], row["first_seq"], row["count"], row["cause"]) == ("ld1", 0, 10, "spool_torn")
    assert list(world.store.aside) == [name]


def test_a_torn_file_is_reported_once_though_it_was_not_set_aside_in_time(world: World) -> None:
    name = spooled(world)
    torn = world.store.blobs[name][:-1]
    world.store.blobs[name] = torn
    world.collector = None
    world.step()
    assert len(world.store.names()) == 1, "the batch that reports it waits"
    world.store.blobs[name] = world.store.aside.pop(name)  # as if killed after that batch was written
    world.collector = None
    world.warehouse.down = False
    world.run(2)
    assert world.losses() == {"spool_torn": 10}
    assert world.store.aside == {name: torn}


def test_a_file_torn_while_it_waits_is_found_when_it_is_shipped(world: World) -> None:
    name = spooled(world)
    world.store.blobs[name] = b"TGW"
    world.warehouse.down = False
    world.run(6)
    (row,) = world.warehouse.rows["losses"]
    assert (row["node"], row["count"], row["cause"]) == ("", 10, "spool_torn")
    assert world.collector.counts["spool_torn"] == 1


def test_a_torn_file_whose_records_are_still_in_the_tap_loses_nothing(world: World) -> None:
    name = spooled(world)
    tap.set_read_cursor(world.node.data, 0)  # as if killed before the cursor moved
    world.store.blobs[name] = world.store.blobs[name][:-1]
    world.collector = None
    world.warehouse.down = False
    world.run(2)
    assert world.records() == world.written()
    assert world.losses() == {}


def test_a_tap_of_another_layout_is_refused_once_and_the_others_go_on(world: World) -> None:
    strange, node = world.writer("strange"), world.writer("ld1", boot=2)
    strange.data[8:12] = b"\1\2\3\4"
    node.write(5)
    world.run(2)
    refusals = [facts for event, facts in world.said if event == "tap refused"]
    assert len(refusals) == 1
    assert refusals[0]["tap"] == strange.name
    assert "layout: expected 0x" in refusals[0]["problem"]
    assert world.collector.counts["taps_refused"] == 1
    assert world.records() == world.written()


def test_a_tap_whose_cursors_contradict_each_other_is_refused(world: World) -> None:
    node = world.writer()
    world.step()
    tap.set_read_cursor(node.data, 99)
    world.run(1)
    assert [facts["tap"] for event, facts in world.said if event == "tap refused"] == [node.name]


def test_a_tap_cut_short_while_in_use_is_let_go_before_it_is_read(world: World) -> None:
    node = world.writer()
    world.step()
    world.directory.files[node.name].short = True
    world.run(1)
    assert "cut short" in world.said[-1][1]["problem"]


def test_records_that_do_not_carry_their_number_are_kept_out_and_counted(world: World) -> None:
    node = world.writer()
    node.write(10)
    node.data[4096 + 3 * 128 : 4096 + 3 * 128 + 8] = (77).to_bytes(8, "little")
    world.run(1)
    assert [r[2] for r in world.records()] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert world.losses() == {"corrupt": 1}


def test_a_node_that_starts_again_is_another_life(world: World) -> None:
    first = world.writer(boot=1)
    first.write(5)
    world.run(0.5)
    first.write(3)
    first.alive = False
    second = world.writer(boot=2)
    second.write(4)
    world.run(4)
    assert world.records() == world.written()
    assert list(world.directory.files) == [second.name]
    alive = {(r["boot_id"], r["alive"]) for r in world.warehouse.rows["feeds"][-1:]}
    assert alive == {("02" * 16, 1)}
    last_word = [r for r in world.warehouse.rows["feeds"] if r["boot_id"] == "01" * 16][-1]
    assert (last_word["alive"], last_word["write_cursor"], last_word["shipped"]) == (0, 8, 8)


def test_a_closed_tap_is_deleted_once_all_of_it_is_shipped_and_not_before(world: World) -> None:
    node = world.writer()
    world.run(0.5)
    world.warehouse.down = True
    node.write(5)
    node.writer.close()
    world.run(10)
    assert list(world.directory.files) == [node.name]
    world.warehouse.down = False
    world.run(8)
    assert world.directory.files == {}
    assert world.records() == world.written()


def test_feeds_tell_what_is_written_shipped_lost_and_alive(world: World) -> None:
    node = world.writer(capacity=16)
    node.writer.beat(world.now - 5 * SECOND)
    node.write(20)
    world.run(2.2)
    last = world.warehouse.rows["feeds"][-1]
    assert (last["node"], last["worker"], last["role"], last["alive"]) == ("ld1", 0, "clb", 1)
    assert (last["write_cursor"], last["shipped"], last["lost"], last["suppressed"]) == (16, 16, 4, 0)
    assert last["heartbeat"].timestamp() == pytest.approx(world.now / 1e9 - 5 - 2.2, abs=0.01)
    assert len(world.warehouse.rows["feeds"]) == 3


def test_a_reported_loss_is_not_reported_again_by_the_next_life(world: World) -> None:
    node = world.writer(capacity=16)
    node.write(20)
    world.run(1)
    world.collector = None
    world.run(1)
    node.write(20)
    world.collector = None
    world.run(1)
    assert world.losses() == {"ring_full": node.state.lost}


def test_counters_are_written_when_they_change(new_world: Callable[..., World]) -> None:
    world = new_world(intervals=Intervals(counters_s=1))
    node = world.writer()

    def count(index: int, value: int) -> None:
        at = records.TAP_COUNTERS_OFFSET + 8 * index
        node.data[at : at + 8] = value.to_bytes(8, "little")

    count(records.COUNTERS["frames_in"], 10)
    count(records.DROP_BASE + 6, 2**63)
    world.run(3)
    count(records.COUNTERS["frames_in"], 11)
    world.run(2)
    rows = [(r["node"], r["counter"], r["value"]) for r in world.warehouse.rows["node_counters"]]
    assert sorted(rows) == [("ld1", "drop.FLOW_LIMIT", 2**63), ("ld1", "frames_in", 10), ("ld1", "frames_in", 11)]


@pytest.mark.parametrize("step", [-3600, -3, 3600])
def test_a_set_clock_does_not_stop_the_reading(world: World, step: int) -> None:
    node = world.writer()
    world.run(1)
    world.now += step * SECOND
    node.write(3)
    world.run(5)
    assert world.records() == world.written()
    assert node.state.read_cursor == 3


def test_batches_say_what_came_from_where_when_no_feeds_do(world: World) -> None:
    node = world.writer(worker=3)
    node.write(5)
    world.run(0.2)
    assert "batches" not in world.warehouse.rows
    assert [r["shipped"] for r in world.warehouse.rows["feeds"]] == [5]
    node.write(2)
    world.run(0.3)
    (row,) = world.warehouse.rows["batches"]
    assert (row["node"], row["worker"], row["kind"], row["first_seq"], row["rows"]) == ("ld1", 3, "point", 5, 2)
    assert f"{row['token']}-trace_points" in world.warehouse.tokens


def test_what_says_that_records_are_in_never_comes_before_them(new_world: Callable[..., World]) -> None:
    """Whatever dies when: `shipped` and `batches` name only records that can be queried."""
    for moment in range(60):
        world = new_world()
        node = world.writer(capacity=1024)
        for turn in range(6):
            node.write(3)
            if turn == 2:
                world.kill_after(moment)
            else:
                world.run(0.3)
            there = len(world.records())
            assert max([r["shipped"] for r in world.warehouse.rows.get("feeds", [])], default=0) <= there
            ends = [r["first_seq"] + r["rows"] for r in world.warehouse.rows.get("batches", [])]
            assert max(ends, default=0) <= there
    assert world.records() == world.written()


def test_one_reading_a_second_makes_one_insert_for_each_table(new_world: Callable[..., World]) -> None:
    world = new_world(intervals=Intervals())
    nodes = [world.writer(f"n{i}", boot=i + 1, capacity=1024) for i in range(8)]
    prober = world.writer("p", kind=records.PROBE_KIND, boot=9, capacity=1024)

    def work() -> None:
        for writer in (*nodes, prober):
            writer.write(1)

    world.run(10, work)
    before = world.warehouse.inserts
    world.run(20, work)
    # trace_points, probes and feeds.
    assert world.warehouse.inserts - before <= 3 * 21
    assert world.warehouse.rows["feeds"][-1]["shipped"] == max(r[2] for r in world.records()) + 1


def test_one_busy_tap_does_not_starve_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.core.BATCH_RECORDS", 10)
    busy, quiet = world.writer("busy", boot=1), world.writer("quiet", boot=2)
    quiet.write(3)
    world.run(2, lambda: busy.write(12))
    assert sum(r[0] == "quiet" for r in world.records()) == 3
    assert busy.state.lost > 0


def test_a_writer_that_beats_on_is_alive_though_the_clock_makes_its_process_look_gone(world: World) -> None:
    """A step of the wall clock moves the start times that the kernel tells: a tap in use must not be deleted."""
    node = world.writer(capacity=64)
    world.run(2, lambda: node.writer.beat(world.now))
    node.alive = False  # as the kernel's start time now says

    def work() -> None:
        node.writer.beat(world.now)

    world.run(6, work)
    assert node.name in world.directory.files
    node.write(3)
    world.run(2, work)
    assert world.records() == world.written()
    assert [f["alive"] for f in world.warehouse.rows["feeds"]][-5:] == [1] * 5
    world.run(5)  # it has ended now: nothing beats
    assert [f["alive"] for f in world.warehouse.rows["feeds"]][-1] == 0
    assert node.name not in world.directory.files


@pytest.mark.parametrize("kept", [b"[]", b"7", b"{", b'{"ld1/x/0": "many"}', b"[" * 100_000])
def test_what_an_earlier_life_kept_may_be_anything(world: World, kept: bytes) -> None:
    world.store.blobs["state.json"] = kept
    node = world.writer()
    node.write(3)
    world.run(1)
    assert world.records() == world.written()
    assert [e for e, _ in world.said if e.startswith("what an earlier life kept")]
