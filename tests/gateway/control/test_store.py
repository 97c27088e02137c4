"""Control over a disk that fails, a store of another version, rows that nobody can read, and years of history."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.documents import stored
from contract.fleet import Fleet
from gateway.control.models import Evidence, Migration, Request, Verdict
from gateway.control.orchestrator import Degraded
from gateway.control.settings import Keep
from gateway.control.store import DAY_NS, Store, StoreError, WriteFailed
from tests.gateway.control.fakes import Region, fleet
from tests.service.test_sqlite import Failing, failing

CRASH = Request(
    cluster="clb-a", reason="crash", requested_by="analyzer", incident_id="inc-1", evidence=Evidence(probers=2, vips=5)
)
CLEAN = Verdict(clean=True, checked=10, silent=0)


@pytest.fixture(autouse=True)
def _mended() -> Iterator[None]:
    yield
    Failing.fails = staticmethod(lambda sql: None)


def same_as_on_disk(region: Region) -> None:
    control, store = region.control, region.store
    assert {m.id: m for m in control.migrations()} == {m.id: m for m in store.migrations()}
    assert control._spots == store.placement()
    assert control._epochs == store.node_epochs()
    assert control._maintenance == store.maintenance()
    kept = store.fleet()
    assert control.fleet == (kept.fleet if kept is not None else None)


def test_whichever_write_fails_memory_is_what_is_on_disk_and_it_is_done_later(tmp_path: Path) -> None:
    """Every commit of a whole story fails once, and the two after it; each time the story comes to its end."""
    commits = 0

    def count(sql: str) -> int | None:
        nonlocal commits
        if sql == "COMMIT":
            commits += 1
            if first <= commits < first + 3:
                return sqlite3.SQLITE_FULL
        return None

    def tell(what: Any, *given: Any) -> None:
        for _ in range(10):
            try:
                what(*given)
            except WriteFailed:
                same_as_on_disk(region)
                continue
            return

    first, longest = 0, 1
    while first < longest:
        first += 1
        commits = 0
        region = Region(tmp_path / f"{first}.db", connect=failing)
        Failing.fails = staticmethod(count)
        tell(region.control.apply_fleet, fleet(), "test")
        region.run(3)
        same_as_on_disk(region)
        tell(region.control.maintain, "ld-b1", True, "me", "x")
        tell(region.control.set_rails, {"min_vips": 2}, "me", "x")
        region.kill("ld-a1", "ld-a2")
        region.run(3)
        tell(region.control.request, CRASH)
        region.run(6)
        same_as_on_disk(region)
        (m,) = region.control.migrations()
        assert m.state == "verifying", first
        tell(region.control.verdict, m.id, CLEAN)
        region.run(3)
        assert region.control.migration(m.id).state == "done"
        assert region.control.problems() == []
        assert all(len(region.announcing(v)) == 1 for v in (1, 2, 3, 4, 5))
        Failing.fails = staticmethod(lambda sql: None)
        same_as_on_disk(region)
        region.store.close()
        longest = max(longest, commits)
    assert longest > 10


def broken(path: Path, change: Any) -> None:
    """Change the stored fleet document as a program with other rules might have left it."""
    with sqlite3.connect(path) as db:
        (text,) = db.execute("SELECT document FROM fleet ORDER BY epoch DESC LIMIT 1").fetchone()
        document = json.loads(text)
        change(document)
        db.execute("UPDATE fleet SET document = ?", (json.dumps(document),))
    db.close()


def test_a_stored_document_that_breaks_a_rule_leaves_nodes_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    region = Region(path).up()
    region.kill("ld-a1", "ld-a2")
    region.run(3)
    moving = region.control.request(CRASH)
    region.run(6)
    region.control.set_rails({"min_vips": 2}, "me", "by hand")
    before = {n: x.tables for n, x in region.client.nodes.items()}
    placed = region.store.placement()
    region.store.close()
    broken(path, lambda d: d["vips"][0].update(name=""))
    again = Region(path, region.client)
    again.now = region.now
    assert "vips[0].name" in again.control.fault
    again.run(120)
    assert {n: x.tables for n, x in region.client.nodes.items()} == before, "nobody is told anything"
    assert again.store.migration(moving.id) == region.control.migration(moving.id)
    with pytest.raises(Degraded, match=r"vips\[0\].name"):
        again.control.request(CRASH)
    kept = again.store.fleet()
    assert kept is not None
    assert kept.raw["vips"][0]["name"] == ""
    # A person puts a right one: everything goes on from where it was.
    again.apply(fleet())
    assert again.control.fault == ""
    assert again.store.placement() == placed
    assert again.control.rails.min_vips == 2, "the document does not say otherwise"
    again.run(3)
    assert all(len(again.announcing(v)) == 1 for v in (1, 2, 3, 4, 5))


def test_fields_that_a_later_program_wrote_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    region = Region(path).up()
    region.control.request(CRASH)
    region.run(1)
    region.control.maintain("ld-b1", True, "me", "")
    region.control.set_rails({"min_vips": 2}, "me", "")
    before = {n: len(x.taken) for n, x in region.client.nodes.items()}
    region.store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE migration SET document = json_set(document, '$.newer', 1, '$.moves[0].newer', 1)")
        db.execute("UPDATE maintenance SET document = json_set(document, '$.newer', 1)")
        db.execute("UPDATE rails SET document = json_set(document, '$.newer', json('{\"a\": 1}'))")
        db.execute("UPDATE fleet SET document = json_set(document, '$.newer', 1, '$.vips[1].newer', 2)")
    db.close()
    again = Region(path, region.client)
    again.now = region.now
    assert again.control.fault == ""
    assert again.control.fleet == region.control.fleet
    assert again.control.migrations() == region.control.migrations()
    assert again.control.drained() == {"ld-b1"}
    assert again.control.rails.min_vips == 2
    assert {n: len(x.taken) for n, x in region.client.nodes.items()} == before


@pytest.mark.parametrize("text", ["{", "[]", '{"id": "m", "state": "paused"}', "[" * 50_000])
def test_a_migration_that_cannot_be_read_and_may_be_under_way_holds_control_still(tmp_path: Path, text: str) -> None:
    path = tmp_path / "control.db"
    region = Region(path).up()
    m = region.control.request(CRASH)
    region.run(6)
    before = {n: x.tables for n, x in region.client.nodes.items()}
    region.store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE migration SET document = ?", (text,))
    db.close()
    for _ in range(2):  # also at the start after that
        again = Region(path, region.client)
        again.now = region.now
        assert again.control.fault == f"migration {m.id} (verifying) cannot be read"
        again.run(60)
        assert {n: x.tables for n, x in region.client.nodes.items()} == before
        again.store.close()
    again = Region(path, region.client)
    again.now = region.now
    again.apply(fleet())
    assert (again.control.fault, again.store.set_aside) == ("", 1)
    again.run(3)
    assert all(again.announcing(v) for v in (1, 2, 3, 4, 5))


def test_other_rows_that_cannot_be_read_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    region = Region(path).up()
    region.control.request(CRASH.model_copy(update={"dry_run": True}))
    region.control.maintain("ld-b1", True, "me", "")
    region.store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE migration SET document = '{'")
        db.execute("UPDATE maintenance SET document = '7'")
        db.execute("UPDATE rails SET document = '{\"min_vips\": -4}'")
    db.close()
    again = Region(path, region.client)
    assert again.control.fault == ""
    assert (again.control.migrations(), again.control.drained()) == ([], set())
    assert again.control.rails == fleet().policy
    assert again.control.problems() == ["3 rows of the store could not be read and are in its table unreadable"]


def test_a_first_version_is_brought_up_with_its_history(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    m = Migration(id="mig-1", cluster="clb-a", kind="dispersed", state="verifying", requested_ns=5)
    with sqlite3.connect(path) as db:
        from gateway.control.store_schema import KIND
        from service.sqlite import statements

        for statement in statements(str(KIND.steps[0])):
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
        db.execute("INSERT INTO fleet VALUES (3, ?, 1, 'x')", (fleet().model_dump_json(),))
        for one in (m, m.model_copy(update={"id": "mig-2", "state": "done"})):
            db.execute(
                "INSERT INTO migration (id, document) VALUES (?, ?)", (one.id, one.model_dump_json(by_alias=True))
            )
    db.close()
    store = Store(path)
    kept = store.fleet()
    assert kept is not None
    assert (kept.epoch, kept.fleet) == (3, fleet())
    assert [x.state for x in store.migrations()] == ["verifying", "done"]
    store.prune(Keep(days=1), [], 9 * DAY_NS)
    assert [x.id for x in store.migrations()] == ["mig-1"], "what is under way stays"
    assert store.next_migration_id().endswith("-3")


def test_years_of_history_are_bounded_and_what_counts_stays(tmp_path: Path) -> None:
    region = Region(tmp_path / "control.db").up()
    region.kill("ld-a1", "ld-a2")
    region.run(3)
    m = region.control.request(CRASH)
    region.run(5)
    region.control.verdict(m.id, CLEAN)
    now = region.now
    with region.store.transaction():
        for number in range(300):
            old = m.model_copy(update={"id": f"x-{number}", "state": "refused", "requested_ns": now, "moves": []})
            region.store.save_migration(old)
            region.store.audit(now, "a", "b", "c", "d" * 200, "e")
            region.store.add_fleet(fleet(), "x", now)
    keep = Keep(migrations=50, audit=60, documents=5)
    region.store.prune(keep, region.control._needed(), now)
    kept = [x.id for x in region.store.migrations()]
    assert (len(kept), kept[0]) == (51, m.id), "it says where VIPs are"
    assert len(region.store.audit_entries(5000)) == 60
    epochs = [r["epoch"] for r in region.store._db.read("SELECT epoch FROM fleet")]
    assert (len(epochs), epochs[-1]) == (5, 301)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        region.store._db.write("DELETE FROM audit")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        region.store._db.write("UPDATE audit_floor SET seq = 0")
    region.store.prune(keep, region.control._needed(), now + 400 * DAY_NS)
    assert [x.id for x in region.store.migrations()] == [m.id]
    assert region.store.audit_entries(10) == []
    assert region.store.fleet() is not None


def test_memory_holds_what_is_needed_and_the_store_has_the_rest(tmp_path: Path) -> None:
    region = Region(tmp_path / "control.db").up()
    region.control.set_rails({"actions_enabled": False}, "me", "test")
    first = region.control.request(CRASH)
    region.now += 3 * DAY_NS
    region.run(1)
    assert region.control.migrations() == []
    assert region.control.migration(first.id) == first


def test_a_second_control_on_the_same_store_is_refused(tmp_path: Path) -> None:
    Region(tmp_path / "control.db")
    with pytest.raises(StoreError, match="another control has it open"):
        Store(tmp_path / "control.db")


def test_unknown_fields_are_found_at_any_depth() -> None:
    document = json.loads(fleet().model_dump_json())
    document["x"] = document["vips"][0]["listeners"][0]["y"] = document["policy"]["z"] = 1
    found, unknown = stored(json.dumps(document), Fleet, "it")
    assert found == fleet()
    assert sorted(unknown) == ["policy.z", "vips[0].listeners[0].y", "x"]


def test_ids_of_migrations_do_not_come_again_when_a_store_is_lost(tmp_path: Path) -> None:
    ids = {Store(tmp_path / f"{n}.db").next_migration_id() for n in range(5)}
    assert len(ids) == 5
