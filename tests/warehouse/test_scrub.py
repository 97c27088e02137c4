"""Errors leave without the server's paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from warehouse.scrub import Scrub


@pytest.mark.parametrize(
    ("text", "asked", "told"),
    [
        ("Cannot open file /home/x/state/chdb/store/1.bin, errno: 2", "", "Cannot open file (path), errno: 2"),
        ("in {folder}/chdb/data/tmp1.data): x", "", "in (path)): x"),
        ("file /usr/lib/x.so", "", "file (path)"),
        ("no such file '/etc/hostname'", "SELECT '/etc/hostname'", "no such file '/etc/hostname'"),
        ("1/2 of a/b, x/y/z and http://host/a/b", "", "1/2 of a/b, x/y/z and http://host/a/b"),
        ("Expected one of: token, /, end of query", "", "Expected one of: token, /, end of query"),
    ],
)
def test_paths_are_taken_out(tmp_path: Path, text: str, asked: str, told: str) -> None:
    scrub = Scrub([tmp_path])
    assert scrub(text.replace("{folder}", str(tmp_path)), asked) == told


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("INSERT INTO probes (prober) FORMAT CSV", b'"a","b","c"\n'),
        ("INSERT INTO probes (nothing) FORMAT CSV", b"1\n"),
        ("INSERT INTO probes (ts) FORMAT JSONEachRow", b'{"ts": {}}\n'),
        ("INSERT INTO probes FORMAT Parquet", b"no parquet"),
        ("INSERT INTO probes FORMAT Arrow", b"no arrow"),
        ("INSERT INTO nowhere FORMAT CSV", b"1\n"),
    ],
)
def test_a_refused_insert_names_no_file_of_ours(warehouse: Any, query: str, body: bytes) -> None:
    answer = warehouse.post(query, body=body)
    assert answer.status_code >= 400
    assert str(warehouse.folder) not in answer.text
    assert "/insert-" not in answer.text
