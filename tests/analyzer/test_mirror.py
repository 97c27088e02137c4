"""What the warehouse gets of incidents, once each, over restarts and outages."""

from __future__ import annotations

import ipaddress

from analyzer import mirror
from analyzer.region import Region
from analyzer.store import Store
from tests.analyzer.model import fleet
from tests.analyzer.story import Story


def settle(store: Store) -> list[mirror.Insert]:
    """Carry out what is due; the inserts."""
    work = mirror.due(store)
    for key, value in work.remember.items():
        store.put(key, value)
    return work.inserts


def test_everything_once_and_changes_again() -> None:
    story = Story(fleet())
    story.run(40)
    assert settle(story.store) == []
    story.model.kill("ld-a1")
    story.model.kill("ld-a2")
    story.run(10)
    again = mirror.due(story.store)
    inserts = {i.table: i for i in settle(story.store)}
    # The same again, with the same tokens, when the mark was not written.
    assert {i.token for i in again.inserts} == {i.token for i in inserts.values()}
    assert set(inserts) == {"incidents", "incident_events", "actions"}
    (row,) = [dict(zip(inserts["incidents"].columns, r, strict=True)) for r in inserts["incidents"].rows]
    assert (row["kind"], row["named_nodes"], row["closed"]) == ("cluster_down", ["ld-a1", "ld-a2"], None)
    assert settle(story.store) == []
    story.run(40)
    later = {i.table: i for i in settle(story.store)}
    assert later["incidents"].rows[0][0] == row["id"]
    assert later["incidents"].rows[0][-1] > row["revision"]
    events = [*inserts["incident_events"].rows, *later["incident_events"].rows]
    assert [r[2] for r in events] == [e["number"] for e in story.store.events(row["id"])]


def test_a_long_backlog_goes_in_pieces() -> None:
    store = Store(":memory:")
    document = {
        "id": "a",
        "incident_id": "i",
        "kind": "k",
        "cluster": "c",
        "state": "s",
        "detail": "",
        "requested_ns": 1,
    }
    for number in range(1200):
        store.save_action(f"a{number}", "i", number, document | {"id": f"a{number}"})
        store.add_event("i", number, "k", "t")
    seen: list[str] = []
    numbers: list[int] = []
    for _ in range(5):
        for insert in settle(store):
            if insert.table == "actions":
                seen += [r[1] for r in insert.rows]
            else:
                numbers += [r[2] for r in insert.rows]
    assert sorted(seen) == sorted(f"a{n}" for n in range(1200))
    assert numbers == list(range(numbers[0], numbers[0] + 1200))


def test_names_of_the_fleet() -> None:
    work = mirror.names(Region(fleet(), 3), "store")
    tables = {i.table: i for i in work.inserts}
    assert {t: len(i.rows) for t, i in tables.items()} == {"dim_nodes": 20, "dim_vips": 40, "dim_servers": 4}
    first = dict(zip(tables["dim_nodes"].columns, tables["dim_nodes"].rows[0], strict=True))
    assert (first["name"], first["role"]) == ("eip-1", "eip")
    assert first["tunnel_address"] == ipaddress.ip_address("::ffff:10.3.0.11")
    assert first["revision"] == 3


def test_rows_that_no_row_can_be_made_of_hold_up_nothing() -> None:
    store = Store(":memory:")
    for number in range(700):
        document: dict[str, object] = {
            "id": f"a{number}", "incident_id": "i", "kind": "k", "cluster": "c", "state": "s", "detail": "",
            "requested_ns": 1,
        }  # fmt: skip
        if number == 7:
            del document["cluster"]
        store.save_action(f"a{number}", "i", number, document)
    store._db.write("UPDATE actions SET document = '{' WHERE id = 'a9'")
    store.commit()
    seen = [r[1] for _ in range(3) for insert in settle(store) for r in insert.rows]
    assert sorted(seen) == sorted(f"a{n}" for n in range(700) if n not in (7, 9))
    assert store.set_aside_words().startswith("2 rows")
