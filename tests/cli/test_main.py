"""The command line: JSON shapes, messages and exit codes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from lab.topology import SMALL, Topology

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGW_RUN", str(tmp_path / "run"))
    monkeypatch.setenv("COLUMNS", "200")


def tgw(*arguments: str) -> Result:
    return RUNNER.invoke(app, list(arguments))


@pytest.fixture
def fleet_file(tmp_path: Path) -> Path:
    path = tmp_path / "fleet.json"
    path.write_text(Topology(SMALL).fleet.model_dump_json())
    return path


def test_a_valid_fleet_is_counted(fleet_file: Path) -> None:
    result = tgw("fleet", "check", str(fleet_file), "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found == {
        "file": str(fleet_file),
        "valid": True,
        "region": "lab",
        "clusters": 5,
        "nodes": 6,
        "real_servers": 2,
        "vips": 4,
    }


def test_a_wrong_fleet_names_file_path_and_expectation(fleet_file: Path) -> None:
    data = json.loads(fleet_file.read_text())
    data["vips"][1]["cluster"] = "clb-z"
    data["nodes"][0]["capacity"] = -1
    fleet_file.write_text(json.dumps(data))
    result = tgw("fleet", "check", str(fleet_file))
    assert result.exit_code == 2
    assert str(fleet_file) in result.stderr
    assert "nodes[0].capacity" in result.stderr
    assert result.stdout == ""
    data["nodes"][0]["capacity"] = 1
    fleet_file.write_text(json.dumps(data))
    assert (
        "vips[1].cluster: expected the name of a clb cluster, got 'clb-z'"
        in tgw("fleet", "check", str(fleet_file)).stderr
    )


def test_an_error_is_json_too_when_asked(tmp_path: Path) -> None:
    result = tgw("fleet", "check", str(tmp_path / "none.json"), "--json")
    assert result.exit_code == 2
    assert "none.json" in json.loads(result.stdout)["error"]


@pytest.mark.parametrize("command", [["lab", "status"], ["lab", "traffic"], ["incidents"], ["migrations"]])
def test_without_a_lab_the_message_says_how_to_start_one(command: list[str]) -> None:
    result = tgw(*command)
    assert result.exit_code == 1
    assert "tgw lab up" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert json.loads(tgw(*command, "--json").stdout)["error"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["lab", "fault", "explode", "ld-a1"], "NAME: expected one of kill, kill-cluster"),
        (["lab", "up", "--size", "huge"], "expected one of demo, small"),
        (["lab", "up", "--prefix", "eth"], "--prefix: expected tgw and"),
        (["lab", "down", "--prefix", "tgw*"], "--prefix: expected tgw and"),
        (["probe", "trace"], "either PROBE_ID or --vip"),
        (["probe", "trace", "zzz", "--analyzer", "http://127.0.0.1:1"], "PROBE_ID: expected a number"),
        (["probe", "trace", "0", "--analyzer", "http://127.0.0.1:1"], "PROBE_ID: expected 1 to"),
        (["incidents", "--analyzer", "ftp://x"], "--analyzer: expected a URL"),
    ],
)
def test_bad_input_is_named_in_one_line_with_status_2(command: list[str], expected: str) -> None:
    result = tgw(*command)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("command", [["lab", "fault", "jitter", "x", "--probability", "2"], ["run", "nothing", "x"]])
def test_values_out_of_range_have_status_2(command: list[str]) -> None:
    assert tgw(*command).exit_code == 2


def test_a_service_that_is_not_there_is_a_failure_not_bad_input() -> None:
    result = tgw("incidents", "--analyzer", "http://127.0.0.1:1")
    assert result.exit_code == 1
    assert "analyzer at http://127.0.0.1:1 does not answer" in result.stderr


def test_down_with_nothing_there_is_no_error() -> None:
    result = tgw("lab", "down", "--prefix", "tgw-no-such", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"up": False, "processes": 0, "killed": 0, "namespaces": 0}


def test_the_doctor_says_one_line_each() -> None:
    found = json.loads(tgw("doctor", "--json").stdout)
    assert {"root", "bird", "native packet path"} <= {f["what"] for f in found}
    assert all(f["detail"] for f in found)


@pytest.fixture
def service() -> Iterator[tuple[str, dict[str, tuple[int, Any]], list[str]]]:
    """A service that answers what the test says; its URL, the answers by path, the headers seen."""
    answers: dict[str, tuple[int, Any]] = {}
    tokens: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tokens.append(self.headers.get("Authorization", ""))
            status, body = answers.get(self.path, (404, {"detail": f"nothing at {self.path}"}))
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", answers, tokens
    server.shutdown()
    server.server_close()


def test_migrations_are_shown_and_the_token_is_sent(
    service: tuple[str, dict[str, tuple[int, Any]], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, answers, tokens = service
    monkeypatch.setenv("TGW_TOKEN", "0123456789abcdef")
    migration = {"id": "m-1", "cluster": "clb-a", "state": "done", "moves": [{"vip_id": 1}], "requested_ns": 10**18}
    older = migration | {"id": "m-0"}
    answers["/v1/migrations?limit=100"] = (200, {"items": [migration], "next": 7})
    answers["/v1/migrations?limit=99&before=7"] = (200, {"items": [older], "next": None})
    assert json.loads(tgw("migrations", "--control", url, "--json").stdout) == [older, migration]
    shown = tgw("migrations", "--control", url).stdout
    assert "clb-a" in shown
    assert "01:46:40.000" in shown
    assert set(tokens) == {"Bearer 0123456789abcdef"}


def test_a_refusal_of_the_service_is_passed_on(service: tuple[str, dict[str, tuple[int, Any]], list[str]]) -> None:
    url, answers, _ = service
    result = tgw("incidents", "i-9", "--analyzer", url)
    assert result.exit_code == 2
    assert "404: nothing at /v1/incidents/i-9" in result.stderr
    answers["/v1/incidents/i-9"] = (503, {"detail": "warehouse is down"})
    assert tgw("incidents", "i-9", "--analyzer", url).exit_code == 1


def test_the_committed_dashboards_are_what_the_code_builds() -> None:
    result = tgw("dashboards", "check", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"stale": []}


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--warehouse", "http://127.0.0.1:1"], 2, "--warehouse and --password-file together"),
        (["--warehouse", "tcp://x", "--password-file", "TOKEN"], 2, "--warehouse: expected http://host:port"),
        (["--warehouse", "http://127.0.0.1:1", "--password-file", "/no/such"], 2, "/no/such"),
        (["--warehouse", "http://127.0.0.1:1", "--password-file", "TOKEN"], 1, "Grafana at http://127.0.0.1:1"),
        (
            ["--warehouse", "http://127.0.0.1:1", "--password-file", "TOKEN", "--analyzer", "javascript:alert(1)"],
            2,
            "--analyzer: expected http(s)://",
        ),
        ([], 1, "tgw lab up"),
    ],
)
def test_publishing_says_what_it_lacks(tmp_path: Path, arguments: list[str], code: int, expected: str) -> None:
    token = tmp_path / "token"
    token.write_text("glsa_test\n")
    given = [str(token) if a == "TOKEN" else a for a in arguments]
    result = tgw("dashboards", "publish", "--grafana", "http://127.0.0.1:1", "--token-file", str(token), *given)
    assert result.exit_code == code
    assert expected in result.stderr


def test_the_journey_of_the_latest_probe_of_a_vip_is_a_table(
    service: tuple[str, dict[str, tuple[int, Any]], list[str]],
) -> None:
    url, answers, _ = service
    hop = {
        "hop": "eip_in",
        "node": "eip-1",
        "worker": 0,
        "packet": "probe",
        "ts_ns": 10**18 + 1_500_000,
        "reason": None,
        "verdict": "forwarded",
        "outer_dst": "10.4.0.3",
    }
    journey = {
        "probe_id": "7",
        "probe_id_hex": "0x0000000000000007",
        "prober": "prober-1",
        "vip": "vip-03",
        "sent_ns": 10**18,
        "outcome": "silent",
        "verdict": {"kind": "silent", "text": "last seen at eip-1"},
        "hops": [hop],
    }
    answers["/v1/vips"] = (200, [{"id": 3, "name": "vip-03"}])
    answers["/v1/probes?vip=3"] = (200, [{"probe_id": "9", "verdict": None}, {"probe_id": "7", "verdict": {}}])
    answers["/v1/probes/7"] = (200, journey)
    assert tgw("probe", "trace", "--vip", "vip-03", "--analyzer", url).exit_code == 1
    answers["/v1/probes?vip=3"] = (200, [{"probe_id": "9", "verdict": None}, {"probe_id": "7", "verdict": {"kind": 1}}])
    shown = tgw("probe", "trace", "--vip", "vip-03", "--analyzer", url).stdout
    assert "after, ms" in shown
    assert "1.500" in shown
    assert "last seen at eip-1" in shown
    assert json.loads(tgw("probe", "trace", "0x7", "--analyzer", url, "--json").stdout) == journey
    unknown = tgw("probe", "trace", "--vip", "vip-99", "--analyzer", url)
    assert unknown.exit_code == 2
    assert "expected the name of a VIP" in unknown.stderr
