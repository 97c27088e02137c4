"""The node's API: every answer it can give, over a process that is played."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from contract.documents import Problem
from contract.records import COUNTERS
from gateway import node_api, node_traffic
from gateway.node_ports import Unresolved
from gateway.node_state import Refused, Stale


class Played:
    """A process whose apply does what it is told."""

    def __init__(self, failure: Exception | None = None, allow_faults: bool = True) -> None:
        self.allow_faults = allow_faults
        self.role = "clb"
        self.failure = failure
        self.given: list[Any] = []
        self.injected: list[dict[str, Any]] = []

    def status(self) -> dict[str, Any]:
        return {"node": "n", "epoch": 3}

    def counters(self) -> list[dict[str, int]]:
        return [{**dict.fromkeys(COUNTERS, worker + 1), "drop.NO_VIP": 5, "drop.NO_ROUTE": 0} for worker in (0, 1)]

    def traffic(self) -> node_traffic.Native:
        return {1: ([(5, 6, 80, 7, 1, 100, 2, 200)], [(5, 3)]), 2: ([(5, 6, 80, 7, 10, 1000, 0, 0)], [(5, 0)])}

    def residence(self) -> node_traffic.Times:
        return [2, 4], {1: ([3, 1], 9)}

    def health(self) -> list[dict[str, Any]]:
        return [
            {"vip_id": 7, "server_id": server, "port": 80, "up": up, "since_ns": since}
            for server, up, since in ((5, True, 0), (6, False, 1_700_000_000_000_000_000))
        ]

    async def apply(self, document: Any) -> int:
        self.given.append(document)
        if self.failure is not None:
            raise self.failure
        return int(document["epoch"])

    def faults(self) -> list[dict[str, Any]]:
        return self.injected

    def inject(self, fault: dict[str, Any]) -> None:
        if fault["kind"] == "lightning":
            raise ValueError("kind: expected something else")
        self.injected.append(fault)

    def clear_faults(self) -> None:
        self.injected.clear()


Ask = Callable[..., httpx.Response]


def client(process: Played) -> Ask:
    app = node_api.create("n", process)

    def ask(method: str, path: str, **more: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as http:
                return await http.request(method, path, **more)

        return asyncio.run(once())

    return ask


def test_a_desired_state_is_acknowledged_by_its_epoch() -> None:
    process = Played()
    answer = client(process)("PUT", "/v1/desired", json={"epoch": 7})
    assert (answer.status_code, answer.json()) == (200, {"epoch": 7})
    assert process.given == [{"epoch": 7}]


@pytest.mark.parametrize(
    ("failure", "status"),
    [(Stale("epoch 6 is older"), 409), (Unresolved("fabric0: silent"), 503), (TimeoutError("worker 1"), 503)],
)
def test_what_cannot_be_applied_says_why(failure: Exception, status: int) -> None:
    answer = client(Played(failure))("PUT", "/v1/desired", json={"epoch": 7})
    assert (answer.status_code, answer.json()) == (status, {"detail": str(failure)})


def test_a_refused_state_lists_its_problems() -> None:
    answer = client(Played(Refused([Problem("clb.vips[0].id", "a number", "x")])))("PUT", "/v1/desired", json={})
    assert answer.status_code == 422
    assert answer.json()["problems"] == [{"path": "clb.vips[0].id", "expected": "a number", "found": "x"}]
    assert "clb.vips[0].id" in answer.json()["detail"]


def test_what_is_no_json_is_refused() -> None:
    process = Played()
    answer = client(process)("PUT", "/v1/desired", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert process.given == []


def test_counters_by_worker_and_reason() -> None:
    answer = client(Played())("GET", "/v1/counters").json()
    assert set(answer) == {"0", "1"}
    assert answer["1"] == {**dict.fromkeys(COUNTERS, 2), "drops": {"NO_VIP": 5}}


def test_metrics_carry_every_counter() -> None:
    text = client(Played())("GET", "/metrics").text
    assert 'tgw_node_frames_in_total{node="n",worker="1"} 2.0' in text
    assert 'tgw_node_flows_active{node="n",worker="0"} 1.0' in text
    assert 'tgw_node_drops_total{node="n",reason="NO_VIP",worker="0"} 5.0' in text
    assert 'tgw_node_server_up{node="n",port="80",server="5",vip="7"} 1.0' in text
    assert 'tgw_node_server_up{node="n",port="80",server="6",vip="7"} 0.0' in text
    for name in COUNTERS:
        assert f"# HELP tgw_node_{name}" in text


def test_health_says_who_is_up_and_since_when() -> None:
    answer = client(Played())("GET", "/v1/health").json()
    assert [(one["server_id"], one["up"]) for one in answer] == [(5, True), (6, False)]
    assert answer[1] == {"vip_id": 7, "server_id": 6, "port": 80, "up": False, "since_ns": 1_700_000_000_000_000_000}


def test_status() -> None:
    assert client(Played())("GET", "/v1/status").json() == {"node": "n", "epoch": 3}


def test_faults_come_and_go() -> None:
    ask = client(Played())
    fault = {"kind": "delay", "probability": 0.5, "seed": 9, "worker": 1, "delay_us": 5000}
    assert ask("POST", "/v1/faults", json=fault).status_code == 201
    assert ask("GET", "/v1/faults").json() == [fault]
    assert ask("DELETE", "/v1/faults").status_code == 204
    assert ask("GET", "/v1/faults").json() == []


@pytest.mark.parametrize("fault", [{"kind": "lightning"}, {"kind": "delay", "probability": 2}, {"colour": "red"}, {}])
def test_a_wrong_fault_is_refused(fault: dict[str, Any]) -> None:
    process = Played()
    answer = client(process)("POST", "/v1/faults", json=fault)
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert process.injected == []


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_faults_are_not_there_unless_allowed(method: str) -> None:
    answer = client(Played(allow_faults=False))(method, "/v1/faults", json={"kind": "reply_loss"})
    assert answer.status_code == 404


def test_traffic_is_summed_over_workers() -> None:
    ask = client(Played())
    body = ask("GET", "/v1/traffic").json()
    row = {"vip_id": 5, "protocol": "tcp", "port": 80, "server_id": 7}
    assert body == {
        "traffic": [{**row, "requests": 11, "request_bytes": 1100, "replies": 2, "reply_bytes": 200}],
        "drops": {"5": 3},
    }
    text = ask("GET", "/metrics").text
    labels = 'direction="request",node="n",port="80",protocol="tcp",server_id="7",vip_id="5"'
    assert f"tgw_node_traffic_packets_total{{{labels}}} 11.0" in text
    assert 'tgw_node_vip_drops_total{node="n",vip_id="5"} 3.0' in text
    assert 'tgw_node_residence_seconds_bucket{le="2e-09",node="n",role="clb",worker="1"} 3.0' in text
    assert 'tgw_node_residence_seconds_count{node="n",role="clb",worker="1"} 4.0' in text


def test_too_much_to_scrape_is_left_out_and_said() -> None:
    rows = [(vip, 0, 0, 0, 1, 1, 1, 1) for vip in range(node_traffic.MOST_SERIES + 1)]
    many: node_traffic.Native = {1: (rows, [])}
    samples = {m.name: m.samples for m in node_traffic.metrics("n", many)}
    assert samples["tgw_node_traffic_packets"] == []
    assert samples["tgw_node_traffic_left_out"][0].value == node_traffic.MOST_SERIES + 1
    assert len(node_traffic.document(many)["traffic"]) == node_traffic.MOST_SERIES + 1
