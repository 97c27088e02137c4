"""The analyzer's store over loss, damage, a disk that fails, and rows that nobody can read."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from analyzer.settings import ENVIRONMENT_PREFIX, Settings
from analyzer.shell import Shell
from analyzer.store import Store, open_store
from contract.fleet import Fleet
from service.settings import load
from tests.analyzer.model import START, fleet
from tests.analyzer.story import Story
from tests.service.test_sqlite import Failing, fail, failing
from tests.warehouse.conftest import Warehouse, run_in


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    yield from run_in(tmp_path_factory.mktemp("warehouse"))


@pytest.fixture(autouse=True)
def _mended() -> Iterator[None]:
    yield
    Failing.fails = staticmethod(lambda sql: None)


def life(place: Path, warehouse: Warehouse, document: Fleet, incident: str) -> None:
    """An analyzer's life on the store in `place`: it opens an incident, and ends once that is in the warehouse."""
    (place / "fleet.json").write_text(document.model_dump_json())
    path = place / "analyzer.toml"
    path.write_text(
        f'fleet = "{place}/fleet.json"\nstate_dir = "{place}/state"\nlisten = {{ port = 0 }}\n'
        '[control]\nurl = "http://127.0.0.1:9"\n'
        f'[warehouse]\nurl = "{warehouse.url}"\nuser = "writer"\n'
        f'password_file = "{warehouse.folder}/writer.password"\n'
    )

    async def run() -> None:
        shell = Shell(load(path, Settings, ENVIRONMENT_PREFIX))
        document = {
            "id": incident, "fingerprint": "f", "kind": "crash", "subject": "ld-a1", "state": "closed",
            "severity": "critical", "summary": "s", "named_nodes": ["ld-a1"], "vips": [1], "opened_ns": time.time_ns(),
            "closed_ns": time.time_ns(), "evidence": {},
        }  # fmt: skip
        shell.store.save_incident(incident, "f", "closed", int(str(document["opened_ns"])), document)
        shell.store.add_event(incident, time.time_ns(), "opened", "s")
        shell.store.save_action(
            f"mig-{incident}", incident, 1,
            {"id": f"mig-{incident}", "incident_id": incident, "kind": "k", "cluster": "c", "state": "done",
             "detail": "", "requested_ns": time.time_ns()},
        )  # fmt: skip
        shell.store.commit()
        running = asyncio.create_task(shell.run())
        try:
            async with asyncio.timeout(20):
                while shell.store.get("mirrored_event", 0) == 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        finally:
            shell.stop.set()
            await running

    asyncio.run(run())


def test_an_analyzer_that_lost_its_state_is_seen_in_the_warehouse_again(tmp_path: Path, warehouse: Warehouse) -> None:
    """The first events of a new store once had the lost one's tokens and numbers, and the engine dropped them."""
    life(tmp_path, warehouse, fleet(), "inc-1")
    assert warehouse.rows("SELECT count() FROM vips") == [(40,)]
    for path in (tmp_path / "state").iterdir():
        path.unlink()
    changed = fleet()
    vips = [v.model_copy(update={"name": f"new-{v.name}"}) for v in changed.vips]
    life(tmp_path, warehouse, changed.model_copy(update={"vips": vips}), "inc-2")
    assert warehouse.rows("SELECT id FROM incidents FINAL ORDER BY id") == [("inc-1",), ("inc-2",)]
    assert warehouse.rows("SELECT incident_id FROM incident_events FINAL ORDER BY 1") == [("inc-1",), ("inc-2",)]
    assert warehouse.rows("SELECT id FROM actions FINAL ORDER BY id") == [("mig-inc-1",), ("mig-inc-2",)]
    assert warehouse.rows("SELECT countIf(name LIKE 'new-%'), count() FROM vips") == [(40, 40)]
    # A clock that was wrong: a row of the lost store stands above all others. The present one wins all the same.
    ahead = 2**62
    row = [1, "of old", "h", *["::1"] * 3, ahead, ahead]
    names = ["id", "name", "home", "public", "private", "service", "epoch", "revision"]
    warehouse.connection().insert("dim_vips", names, [row])
    for path in (tmp_path / "state").iterdir():
        path.unlink()
    life(tmp_path, warehouse, fleet(), "inc-1")
    assert warehouse.rows("SELECT countIf(name LIKE 'vip-%'), count() FROM vips") == [(40, 40)]
    (first,) = warehouse.rows("SELECT revision FROM incidents FINAL WHERE id = 'inc-1'")
    assert first[0] > 0


def test_numbers_never_come_again(tmp_path: Path) -> None:
    clock = [10**18]
    old = Store(tmp_path / "a", lambda: clock[0])
    old.add_event("i", 1, "k", "t")
    first = [old.next_revision() for _ in range(3)]
    old.close()
    clock[0] += 5_000_000_000
    new = Store(tmp_path / "b", lambda: clock[0])
    new.add_event("i", 1, "k", "t")
    assert new.next_revision() > first[-1] > first[0] >= 10**15
    clock[0] -= 10**18 // 2
    assert new.next_revision() > first[-1], "a clock that is put back does not take numbers back"
    again = Store(tmp_path / "a", lambda: clock[0])
    assert again.events_after(0)[0]["number"] < new.events_after(0)[0]["number"]


def test_a_damaged_store_is_set_aside_and_said(tmp_path: Path) -> None:
    path = tmp_path / "analyzer.sqlite"
    path.write_text("no database at all" * 500)
    store, notice = open_store(path)
    assert "damaged" in notice
    assert store.incidents() == []
    (aside,) = tmp_path.glob("*.damaged-*")
    assert aside.read_text().startswith("no database")
    store.close()
    assert open_store(path)[1] == ""


def test_rows_that_cannot_be_read_are_set_aside_and_the_rest_is_there(tmp_path: Path) -> None:
    path = tmp_path / "s"
    store = Store(path)
    store.save_silence("good", {"id": "good"})
    store.put("told", {"a": 1})
    store.put("ledger", {"a": 1})
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO silences VALUES ('bad', '{\"id\": ')")
        db.execute("INSERT INTO silences VALUES ('list', '[]')")
        db.execute("UPDATE kept SET value = '[1]' WHERE key = 'told'")
        db.execute("UPDATE kept SET value = 'x' WHERE key = 'ledger'")
        db.execute(
            "INSERT INTO incidents (id, fingerprint, state, opened_ns, revision, document) "
            "VALUES ('i', 'f', 'open', 1, 1, '{')"
        )
    store = Store(path)
    assert store.silences() == [{"id": "good"}]
    assert store.incidents() == []
    assert store.get("told", {}) == {}
    assert store.get("ledger") is None
    assert store.set_aside_words().startswith("5 rows")
    store.close()
    with sqlite3.connect(path) as db:
        kept = dict(db.execute("SELECT key, text FROM unreadable"))
    assert kept == {"bad": '{"id": ', "list": "[]", "told": "[1]", "ledger": "x", "i": "{"}


def test_the_analyzer_heals_and_tells_while_its_disk_is_full(tmp_path: Path) -> None:
    """The seam: its disk takes nothing from before the fault until after; control is asked and people are told."""
    store = Store(tmp_path / "s", connect=failing)
    story = Story(fleet(), store=store)
    story.run(40)
    fail("COMMIT", sqlite3.SQLITE_FULL)
    story.model.kill("ld-a1")
    story.model.kill("ld-a2")
    story.run(40)
    assert "disk I/O error" in store.problem
    assert [(i.kind, i.state) for i in story.incidents()] == [("cluster_down", "mitigated")]
    assert story.told() == ["firing", "mitigated"]
    with sqlite3.connect(tmp_path / "s") as db:
        assert db.execute("SELECT count(*) FROM incidents").fetchone() == (0,)
    Failing.fails = staticmethod(lambda sql: None)
    deadline = time.monotonic() + 35
    while store.problem:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        store.commit()
    with sqlite3.connect(tmp_path / "s") as db:
        (text,) = db.execute("SELECT document FROM incidents").fetchone()
        assert db.execute("SELECT state FROM outbox").fetchall() == [("delivered",), ("delivered",)]
    assert json.loads(text)["state"] == "mitigated"
    assert json.loads(text)["opened_ns"] > START
