"""An analyzer beside a real control that holds still, because its stored document breaks a rule: nobody does harm."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import httpx

from analyzer.control_client import ControlClient
from analyzer.engine import Engine
from analyzer.region import SECOND
from analyzer.region import Region as Known
from analyzer.remedy import PostMigration
from analyzer.rows import Rows
from analyzer.store import Store
from gateway.api.app import create
from gateway.control.models import Evidence, Request
from tests.gateway.control.fakes import Region, fleet


def test_it_says_why_keeps_what_it_knew_and_goes_on_once_control_does(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    region = Region(path).up()
    engine = Engine(Known(fleet()), Store(":memory:"), region.now)
    client = ControlClient("http://control", None, 5.0, httpx.ASGITransport(app=create(region.control)))
    region.control.request(
        Request(cluster="clb-a", reason="x", requested_by="a", force=True, evidence=Evidence(probers=2, vips=5))
    )
    region.run(5)
    view = asyncio.run(client.view())
    assert view is not None, client.error
    engine.look(region.now, Rows(), view)
    placed = engine.situation().cluster_of_vip(1)
    assert placed.startswith("buf-")

    region.store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE fleet SET document = json_set(document, '$.nodes[1].tunnel_address', 'nowhere')")
    db.close()
    region = Region(path, region.client)
    client._http = httpx.AsyncClient(
        base_url="http://control", transport=httpx.ASGITransport(app=create(region.control))
    )
    assert asyncio.run(client.view()) is None
    assert "nodes[1].tunnel_address" in client.error
    assert asyncio.run(client.fleet()) is None
    answer = asyncio.run(client.send(PostMigration("inc", "clb-b", "why", {"probers": 2, "vips": 3})))
    assert answer.status == 503
    look = engine.look(region.now + SECOND, Rows(), None)
    assert not look.requests
    assert engine.situation().cluster_of_vip(1) == placed
    fresh = Engine(Known(fleet()), Store(":memory:"), region.now)
    assert not fresh.look(region.now, Rows(), None).requests

    region.apply(fleet())
    view = asyncio.run(client.view())
    assert view is not None, client.error
    assert view.placement[1].cluster == placed
