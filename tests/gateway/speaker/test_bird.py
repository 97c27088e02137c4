"""What BIRD is told, held against BIRD's own parser, and what it answers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.documents import DocumentError, check
from gateway.speaker import bird_conf
from gateway.speaker.birdc import Birdc, BirdError, Line, Reply
from gateway.speaker.liveness import SILENT, Decision
from gateway.speaker.settings import SpeakerSettings

FABRIC = {
    "name": "fabric",
    "interface": "fabric0",
    "neighbor": "10.2.1.1",
    "neighbor_asn": 64513,
    "local": "10.2.1.2",
    "family": 4,
    "side": "fabric",
}
EDGE4 = FABRIC | {"name": "edge4", "interface": "edge0", "neighbor": "10.1.1.1", "local": "10.1.1.2", "side": "edge"}
EDGE6 = EDGE4 | {"name": "edge6", "neighbor": "fd01::1", "local": "fd01::2", "family": 6, "bfd": False}
EVERYTHING = Decision(
    True,
    "alive",
    3,
    ("10.3.0.1/32", "10.3.255.1/32", "fd00:3::1/128"),
    ("10.3.0.1/32", "203.0.113.1/32", "2001:db8:100::1/128"),
)


def settings(tmp_path: Path, **over: Any) -> SpeakerSettings:  # x
    data = {
        "node": "eip-1",
        "state_dir": str(tmp_path),
        "router_id": "10.2.1.2",
        "asn": 4_200_000_001,
        "session": [FABRIC, EDGE4, EDGE6],
    }
    return check(data | over, SpeakerSettings, "speaker.toml")


@pytest.mark.skipif(shutil.which("bird") is None, reason="needs the command bird")
@pytest.mark.parametrize("announce", [SILENT, EVERYTHING])
def test_bird_itself_takes_the_configuration(tmp_path: Path, announce: Decision) -> None:
    given_settings = settings(tmp_path)
    given_settings.bird_conf.write_text(bird_conf.render(given_settings, announce))
    done = subprocess.run(["bird", "-p", "-c", given_settings.bird_conf], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_side_carries_its_own_set_by_family(tmp_path: Path) -> None:
    text = bird_conf.render(settings(tmp_path), EVERYTHING)
    sections = {
        s.split()[2]: s for s in text.split("\n\n") if "protocol static" in s for s in [s[s.index("protocol") :]]
    }
    routes = {name: [line.split()[1] for line in s.splitlines() if "route " in line] for name, s in sections.items()}
    assert routes == {
        "static_fabric4": ["10.3.0.1/32", "10.3.255.1/32"],
        "static_edge4": ["10.3.0.1/32", "203.0.113.1/32"],
        "static_edge6": ["2001:db8:100::1/128"],
    }
    assert text.count("import none") == 3
    assert "protocol kernel" not in text
    assert bird_conf.unannounceable(settings(tmp_path), EVERYTHING) == ["fabric: fd00:3::1/128 (no IPv6 session)"]


@pytest.mark.parametrize(
    ("over", "path"),
    [
        ({"session": []}, "session"),
        ({"session": [FABRIC, FABRIC]}, "fabric"),
        ({"session": [FABRIC | {"family": 6}]}, "session[0]"),
        ({"session": [FABRIC | {"interface": 'x"; }'}]}, "session[0].interface"),
        ({"session": [FABRIC | {"neighbor_asn": 0}]}, "session[0].neighbor_asn"),
        ({"router_id": "fd00::1"}, "router_id"),
        ({"stale_ms": 150}, "stale_ms"),
        ({"state_dir": "/" + "x" * 110}, "state_dir"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_wrong_settings_are_refused_with_the_path(tmp_path: Path, over: dict[str, Any], path: str) -> None:
    with pytest.raises(DocumentError) as caught:
        settings(tmp_path, **over)
    assert path in str(caught.value)


def test_a_reply_is_put_together_from_any_pieces() -> None:
    text = b"0001 BIRD 2.0.12 ready.\n"
    reply = Reply()
    for i in range(len(text)):
        assert not reply.done
        reply.feed(text[i : i + 1])
    assert reply.done
    assert reply.lines == [Line(1, "BIRD 2.0.12 ready.")]


def test_a_reply_of_many_lines_ends_at_the_one_without_a_dash() -> None:
    reply = Reply()
    reply.feed(b"2002-Name       Proto\n1002-device1 Device --- up 10:00\n more of it\n+async\n0000 \n")
    assert reply.done
    assert [line.code for line in reply.lines] == [2002, 1002, 1002, 0]


@given(st.binary(max_size=300))
def test_any_bytes_are_a_reply_or_an_error(data: bytes) -> None:
    reply = Reply()
    try:
        reply.feed(data)
    except BirdError:
        return


def _answer_once(path: Path, greeting: bytes, answer: bytes) -> threading.Thread:
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve() -> None:
        with server, server.accept()[0] as s:
            s.sendall(greeting)
            s.recv(1000)
            s.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"8002 bird.conf:3:1 syntax error\n", "syntax error"),
        (b"0002-Reading configuration from x\n9001 Access denied\n", "Access denied"),
        (b"0013 Something else\n", "Something else"),
        (b"", "closed the connection"),
    ],
)
def test_what_bird_refuses_is_an_error_in_its_own_words(tmp_path: Path, answer: bytes, words: str) -> None:
    thread = _answer_once(tmp_path / "ctl", b"0001 BIRD 2.0.12 ready.\n", answer)
    with pytest.raises(BirdError, match=words):
        Birdc(tmp_path / "ctl", 2.0).configure()
    thread.join(2)


def test_no_bird_is_an_error_that_names_the_socket(tmp_path: Path) -> None:
    with pytest.raises(BirdError, match="ctl"):
        Birdc(tmp_path / "ctl").command("show status")
