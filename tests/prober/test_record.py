"""Records say what was judged, and the tap file appears whole."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from contract import tap
from contract.colour import probe_id
from contract.records import PROBE_KIND, ProbeRecord
from contract.vocabulary import Outcome
from prober.judge import Closed, Probe
from prober.receive import mapped
from prober.record import Tap, encode

WALL = 1_700_000_000_000_000_000
SOURCE, VIP = ip_address("198.18.1.1"), ip_address("203.0.113.1")
PROBE = Probe(7, mapped(SOURCE.packed), 5000, mapped(VIP.packed), 80, 0xDEADBEEF, WALL)


def test_an_answered_probe() -> None:
    record = ProbeRecord.unpack(encode(Closed(PROBE, Outcome.ANSWERED, WALL + 9, 2**40, 300, 61), 5))
    assert record.seq == 5
    assert record.probe_id == probe_id(SOURCE, 5000, 0xDEADBEEF)
    assert (record.outcome, record.ip_version, record.protocol) == (Outcome.ANSWERED, 4, 6)
    assert (record.rtt_ns, record.retransmits, record.reply_ttl) == (2**32 - 1, 255, 61)
    assert (record.ts_ns, record.closed_ns, record.vip_id, record.isn) == (WALL, WALL + 9, 7, 0xDEADBEEF)


def test_ipv6_and_silence() -> None:
    six = Probe(7, ip_address("2001:db8::1").packed, 1, ip_address("2001:db8::2").packed, 80, 1, WALL)
    record = ProbeRecord.unpack(encode(Closed(six, Outcome.SILENT, WALL), 0))
    assert (record.ip_version, record.rtt_ns, record.reply_ttl) == (6, 0, 0)


def test_the_tap_file_holds_what_was_written_and_says_that_it_ended(tmp_path: Path) -> None:
    made = Tap(tmp_path / "taps", "p1", bytes(range(16)), 64, WALL)
    assert [p.name for p in (tmp_path / "taps").iterdir()] == ["p1.0.00010203.tap"]
    for n in range(70):
        assert made.write(Closed(PROBE, Outcome.SILENT, WALL + n)) == (n < 64)
    made.beat(WALL + 1)
    data = made.path.read_bytes()
    header, state = tap.read_header(data), tap.read_state(data)
    assert (header.node, header.role, header.record_kind, header.boot_id) == ("p1", 0, PROBE_KIND, bytes(range(16)))
    assert (state.write_cursor, state.lost, state.heartbeat_ns, state.closed) == (64, 6, WALL + 1, False)
    raw = b"".join(tap.read_records(data, header, 0, 64))
    seqs = [ProbeRecord.unpack(raw[i : i + 128]).seq for i in range(0, len(raw), 128)]
    assert seqs == list(range(64))
    made.close()
    assert tap.read_state(made.path.read_bytes()).closed
