"""Readers that mean no good, against the real process: its memory, /ping, inserts and the collector's records."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from analyzer.endpoints import OUTAGE_NS
from tests.collector.test_warehouse import Lab, Writer, until
from tests.warehouse.conftest import PASSWORDS
from warehouse.client import Connection
from warehouse.settings import WarehouseSettings

MEMORY = (
    "SELECT repeat('x', 1000) FROM numbers(4000000)",
    "SELECT groupArray(number) FROM numbers(60000000)",
    "SELECT number, count() FROM numbers(50000000) GROUP BY number",
    "SELECT number FROM numbers(30000000) ORDER BY cityHash64(number)",
    "SELECT a.number FROM numbers(20000000) AS a JOIN numbers(20000000) AS b ON a.number = b.number",
    "SELECT repeat(repeat('x', 1000), 100000)",
)
BUDGET_KB = 1 << 20


def status(pid: int, field: str) -> int:
    """A field of /proc/PID/status [kB]."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def drained(url: str, query: str, password: str, **params: str) -> tuple[int, int, bool]:
    """(status, bytes, whether it came to its end) of a reader's statement, taken as fast as it comes."""
    headers = {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": password, "Accept-Encoding": "identity"}
    size, whole = 0, False
    with httpx.stream(
        "POST", url + "/", params=params, content=query, headers=headers, timeout=90, trust_env=False
    ) as answer:
        with contextlib.suppress(httpx.RemoteProtocolError):
            for chunk in answer.iter_raw():
                size += len(chunk)
            whole = True
        return answer.status_code, size, whole


@contextlib.contextmanager
def at_work(count: int, act: Callable[[int, int], Any]) -> Iterator[list[Any]]:
    """`act(who, turn)` again and again in `count` threads; what it gives."""
    over, given = threading.Event(), []

    def work(who: int) -> None:
        for turn in itertools.count():
            if over.is_set():
                return
            with contextlib.suppress(httpx.HTTPError):
                given.append(act(who, turn))

    threads = [threading.Thread(target=work, args=(who,)) for who in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield given
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def test_eight_readers_of_gigabytes_stay_in_the_budget(warehouse_of_two_seconds: Any) -> None:
    warehouse = warehouse_of_two_seconds
    pid = warehouse.process.pid
    warehouse.post("SELECT 1", "reader")
    idle = status(pid, "VmRSS")
    outcomes = []

    def ask(i: int) -> None:
        # The first is the one that took 16 GB; the others want memory for themselves, and are refused.
        outcomes.append((0, drained(warehouse.url, MEMORY[0], PASSWORDS["reader"])))
        form = ("JSON", "Arrow", "Parquet", "Native")[i % 4]
        for k in range(1, len(MEMORY)):
            query = MEMORY[1 + (i + k) % (len(MEMORY) - 1)]
            outcomes.append((k, drained(warehouse.url, query, PASSWORDS["reader"], default_format=form)))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    peak = status(pid, "VmHWM")
    print(f"idle {idle >> 10} MiB, peak {peak >> 10} MiB")
    assert peak - idle <= BUDGET_KB
    # Answered as far as its time reached, and never taken for whole.
    assert all(status_ == 200 and (size == 4_004_000_000) == whole for k, (status_, size, whole) in outcomes if k == 0)
    assert len(outcomes) == 8 * len(MEMORY)
    assert {found[0] for _, found in outcomes} <= {200, 408, 500}
    assert any(found[0] == 500 for _, found in outcomes)


def test_long_and_twisted_statements_do_not_hold_the_event_loop(own_warehouse: Any) -> None:
    heredocs = "SELECT " + ", ".join(f"$t{i}$" for i in range(8000))
    statements = [
        ("SELECT " + "1," * 2_000_000 + "1").encode(),
        heredocs[:47_000].encode(),
        ("SELECT " + "1," * 120_000 + "1").encode(),
        ("SELECT " + "(" * 200_000).encode(),
        b"SELECT '" + b"\\'" * 100_000,
    ]
    statuses = set()

    def ask(who: int, turn: int) -> None:
        statuses.add(own_warehouse.post(statements[(who + turn) % len(statements)].decode(), "reader").status_code)

    with at_work(8, ask), httpx.Client(trust_env=False) as client:
        took = []
        until_ = time.monotonic() + 8
        while time.monotonic() < until_:
            began = time.monotonic()
            assert client.get(own_warehouse.url + "/ping").text == "Ok.\n"
            took.append(time.monotonic() - began)
            time.sleep(0.01)
    took.sort()
    print(f"/ping: p50 {took[len(took) // 2] * 1e3:.0f} ms, p99 {took[len(took) * 99 // 100] * 1e3:.0f} ms")
    assert took[len(took) * 99 // 100] < 0.5
    assert statuses <= {400, 403, 413, 500, 503}


def hostile(url: str, password: str) -> Callable[[int, int], Any]:
    """What a reader may think of: to compute, to hold memory, to read much, to ask nonsense, to leave early."""
    statements = [
        "SELECT count() FROM numbers(1000000000000) WHERE number % 7 = cityHash64(number) % 5",
        *MEMORY[1:5],
        "SELECT repeat('x', 1000) FROM numbers(4000000)",
        "SELECT " + "1," * 100_000 + "1",
        "SELECT count() FROM numbers(1000000000000) WHERE number % 7 = sipHash64(number) % 5",
    ]

    def act(who: int, turn: int) -> Any:
        query = statements[(who + turn) % len(statements)]
        if who % 4 == 3:
            headers = {"X-ClickHouse-User": "reader", "X-ClickHouse-Key": password}
            try:
                return httpx.post(url + "/", content=query, headers=headers, timeout=0.5, trust_env=False).status_code
            except httpx.TimeoutException:
                return "left"
        found = drained(url, query, password)
        if found[0] == 503:
            time.sleep(0.1)
        return found[0]

    return act


def attack(url: str, password: str, seconds: float, answers: Any) -> None:
    """64 hostile readers in a process of their own, behind all others: an attacker brings its own processors."""
    os.nice(19)
    with at_work(64, hostile(url, password)) as answered:
        time.sleep(seconds)
        answers.put(len(answered))
    # What they still wait for is nobody's.
    os._exit(0)


@pytest.mark.slow
def test_inserts_go_on_and_no_collector_outage_opens_with_64_hostile_readers_at_work(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    writer = Writer(tmp_path / "taps", "ld1")
    rows = pa.table({"ts": pa.array([0] * 1000, pa.timestamp("ns", tz="UTC")), "prober": ["hostile"] * 1000})
    attacker = None
    try:
        process = lab.start("warehouse")
        lab.start("collector")
        writer.write(1)
        until(lambda: lab.all_in([writer]), 20, "nothing arrives")
        idle = status(process.pid, "VmRSS")
        url = tomllib.loads((tmp_path / "collector.toml").read_text())["warehouse"]["url"]
        own = Connection(WarehouseSettings(url=url, user="collector", password_file=tmp_path / "collector"))
        took: list[float] = []
        silent_s = 0.0
        spawn = multiprocessing.get_context("spawn")
        answers = spawn.Queue()
        attacker = spawn.Process(target=attack, args=(url, "password-of-reader", 22, answers), daemon=True)
        attacker.start()
        time.sleep(2)
        over = time.monotonic() + 20
        while time.monotonic() < over:
            writer.write(3)
            began = time.monotonic()
            own.insert_arrow("probes", rows, f"hostile-{len(took)}")
            took.append(time.monotonic() - began)
            # As the analyzer sees it: how old is the newest feed?
            ((latest,),) = own.query("SELECT toUnixTimestamp64Nano(max(ts)) FROM feeds")
            silent_s = max(silent_s, time.time() - int(latest) / 1e9)
            time.sleep(0.02)
        peak = status(process.pid, "VmHWM")
        answered = answers.get(timeout=20)
        attacker.kill()
        attacker.join()
        until(lambda: lab.all_in([writer]), 20, "the records do not land")
        own.close()
    finally:
        if attacker is not None and attacker.is_alive():
            attacker.kill()
        lab.connection.close()
        for room in list(lab.running):
            lab.kill(room)
    took.sort()
    print(
        f"{answered} hostile answers; {len(took)} inserts: p50 {took[len(took) // 2] * 1e3:.0f} ms,"
        f" p99 {took[len(took) * 99 // 100] * 1e3:.0f} ms; newest feed at most {silent_s:.2f} s old;"
        f" memory over idle {(peak - idle) >> 10} MiB"
    )
    assert answered > 20
    assert took[len(took) * 99 // 100] <= 1
    assert silent_s * 1e9 < OUTAGE_NS
    assert peak - idle <= BUDGET_KB
