"""The analyzer's store over loss, damage, a disk that fails, and rows that nobody can read."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analyzer.alerting import alert
from analyzer.incident import Book, Incident
from analyzer.keep import Keep
from analyzer.settings import ENVIRONMENT_PREFIX, Settings
from analyzer.shell import Shell
from analyzer.store import DAY_NS, Store, open_store
from contract.documents import DocumentError
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


def incident(number: int, state: str = "closed", closed_ns: int = 0) -> dict[str, Any]:
    """A whole incident document."""
    return Incident(
        id=f"inc-{number}", fingerprint=f"f{number}", family="node_down", kind="crash", subject="ld-a1",
        subject_type="node", severity="critical", region="r", az="az1", cluster="clb-a", named_nodes=["ld-a1"],
        vips=[1], probers=[], seen_by_vips=[], summary="s", state=state, first_seen_ns=1, opened_ns=number,
        updated_ns=1, last_seen_ns=1, closed_ns=closed_ns, cleared=state == "closed",
    ).as_dict()  # fmt: skip


def test_years_of_history_are_bounded_and_what_is_open_stays(tmp_path: Path) -> None:
    now = START
    store = Store(tmp_path / "s")
    for number in range(400):
        # The oldest of all is open, the next ones closed long ago.
        closed = 0 if number == 0 else now - 100 * DAY_NS if number < 100 else now - DAY_NS + number
        state = "open" if number == 0 else "closed"
        store.save_incident(f"inc-{number}", f"f{number}", state, number, incident(number, state, closed))
        for _ in range(5):
            store.add_event(f"inc-{number}", 1, "k", "t" * 200)
        store.save_action(f"a-{number}", f"inc-{number}", 1, {"id": f"a-{number}"})
        store.add_decision(now - (400 - number) * DAY_NS, "alert", "x", "y", "z", f"inc-{number}")
        store.enqueue(f"m-{number}", "ops", "g", [f"inc-{number}"], "b" * 1000, now)
        if number > 2:
            store.mark_delivery(f"m-{number}", "delivered", 1, 0, now, None)
        store.save_silence(f"s-{number}", {"id": f"s-{number}", "ends_ns": now - 200 + number})
    for number in range(100):
        store.add_event("inc-0", 1, "opened" if number == 0 else "k", str(number))
    store.commit()
    keep = Keep(incidents=50, events_of_one=20, decisions=60, notifications=40, silences=30, days=90)
    store.prune(keep, ["inc-150"], now)
    kept = [d["id"] for d in store.incidents()]
    assert kept == ["inc-0", "inc-150", *(f"inc-{n}" for n in range(350, 400))]
    texts = [e["text"] for e in store.events("inc-0")]
    assert (texts[0], texts[1:]) == ("0", [str(n) for n in range(80, 100)])
    assert store.events("inc-7") == store.actions("inc-7") == []
    assert len(store.actions("inc-0")) == 1
    assert len(store.decisions(1000)) == 60
    assert [r["id"] for r in store.pending()] == ["m-0", "m-1", "m-2"], "what is still to be sent stays"
    assert store.delivery_counts()["delivered"] == 40
    ids = {s["id"] for s in store.silences()}
    assert ids == {f"s-{n}" for n in range(170, 400)}, "what holds still stays, and the latest that have ended"
    store.close()
    before = (tmp_path / "s").stat().st_size
    again = Store(tmp_path / "s")
    again.prune(keep, [], now + 400 * DAY_NS)
    assert [d["id"] for d in again.incidents()] == ["inc-0"]
    assert again.silences() == []
    again.close()
    assert (tmp_path / "s").stat().st_size < before / 2


def test_memory_holds_what_is_open_and_the_last_day(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    for number, hours in enumerate((500, 25, 23, 1)):
        closed = START - hours * DAY_NS // 24
        store.save_incident(f"inc-{number}", "f", "closed", number, incident(number, "closed", closed))
    store.save_incident("inc-9", "f", "mitigated", 9, incident(9, "mitigated"))
    store.commit()
    book = Book(store, START)
    assert list(book.incidents) == ["inc-2", "inc-3", "inc-9"]
    book.forget(START + 3 * DAY_NS // 24)
    assert list(book.incidents) == ["inc-3", "inc-9"]
    assert store.incident("inc-0") is not None


def test_what_a_later_analyzer_wrote_is_kept_and_what_is_wrong_is_set_aside(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    store.save_incident("inc-1", "f1", "open", 1, incident(1, "open") | {"newer": {"a": 1}})
    store.save_incident("inc-2", "f2", "pondering", 2, incident(2, "pondering"))
    store.save_incident("inc-3", "f3", "open", 3, incident(3, "open") | {"vips": "many"})
    store.save_incident("inc-4", "f4", "open", 4, incident(4, "open") | {"family": "gremlins"})
    missing = incident(5, "open")
    del missing["subject"]
    store.save_incident("inc-5", "f5", "open", 5, missing)
    store.put("ledger", {"totals": 7})
    store.put("since_ns", "x")
    store.put("told", [1])
    store.save_silence("s1", {"id": "s1", "matchers": [{"label": "a", "value": "("}], "odd": 1})
    good = {
        "id": "s2", "matchers": [{"label": "a", "value": "b", "newer": 1}], "starts_ns": 0, "ends_ns": 2**62,
        "created_by": "me", "comment": "c", "created_ns": 1, "newer": 2,
    }  # fmt: skip
    store.save_silence("s2", good)
    store.commit()
    story = Story(fleet(), store=store)
    book = story.engine.book
    assert set(book.incidents) == {"inc-1", "inc-2", "inc-4"}
    assert book.incidents["inc-2"].state == "open", "it may not be over"
    assert list(story.engine.silences) == ["s2"]
    story.run(40)
    book.save(book.incidents["inc-1"], story.model.now)
    kept = store.incident("inc-1")
    assert kept is not None
    assert kept["newer"] == {"a": 1}
    nameless = alert.of(book.incidents["inc-4"], "http://analyzer")
    assert nameless.labels["alertname"] == "TgwFault", "a family without a name is told of all the same"


def test_a_fleet_file_that_breaks_a_rule_does_not_keep_the_analyzer_down(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x" * 20)
    path = tmp_path / "analyzer.toml"
    path.write_text(
        f'fleet = "{tmp_path}/fleet.json"\nstate_dir = "{tmp_path}/state"\nlisten = {{ port = 0 }}\n'
        '[control]\nurl = "http://127.0.0.1:9"\n'
        f'[warehouse]\nurl = "http://127.0.0.1:9"\nuser = "w"\npassword_file = "{tmp_path}/password"\n'
    )

    def start() -> Shell:
        return Shell(load(path, Settings, ENVIRONMENT_PREFIX))

    (tmp_path / "fleet.json").write_text("{}")
    with pytest.raises(DocumentError, match="region"):
        start()
    (tmp_path / "fleet.json").write_text(fleet().model_dump_json())
    shell = start()
    shell.store.close()
    document = fleet().model_dump(mode="json")
    document["vips"][3]["name"] = ""
    (tmp_path / "fleet.json").write_text(json.dumps(document))
    again = start()
    assert again.engine.region.fleet == fleet()
    assert again.engine.region.epoch == shell.engine.region.epoch
    assert "vips[3].name" in again.errors["the fleet file"]
    again.store.close()
