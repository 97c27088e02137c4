"""A real ClickHouse server, Debian's of 2018, where it is installed: it answers the marked cases as the table says.

It also reads our blocks, and we its own. TGW_CLICKHOUSE_SERVER names its program where it is not on the path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.warehouse.conformance.cases import Case, Endpoint, cases, faults
from tests.warehouse.conftest import PASSWORDS, free_port
from warehouse import encoding, framing

TABLE = "conformance_cases"
CONFIG = """<yandex><logger><level>error</level><console>1</console></logger><http_port>{http}</http_port>
<tcp_port>{tcp}</tcp_port><listen_host>127.0.0.1</listen_host><path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path>
<users_config>users.xml</users_config><default_profile>default</default_profile>
<default_database>default</default_database><mark_cache_size>5368709</mark_cache_size></yandex>"""
USER = (
    "<{name}><password>{password}</password><networks><ip>127.0.0.1</ip></networks><profile>{profile}</profile>"
    "<quota>default</quota></{name}>"
)


def ask(url: str, statement: str, body: bytes = b"", **params: str) -> httpx.Response:
    """A statement in the body, or in the URL where there is data beside it."""
    params |= {"user": "writer", "password": PASSWORDS["writer"]}
    if body:
        params["query"] = statement
    answer = httpx.post(url + "/", params=params, content=body or statement, timeout=30, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    program = os.environ.get("TGW_CLICKHOUSE_SERVER") or shutil.which("clickhouse-server")
    if program is None:
        pytest.skip("Debian's clickhouse-server is not installed")
    folder = tmp_path_factory.mktemp("clickhouse")
    port = free_port()
    (folder / "config.xml").write_text(CONFIG.format(http=port, tcp=free_port(), folder=folder))
    users = "".join(
        USER.format(name=name, password=password, profile="default" if name == "writer" else "reading")
        for name, password in PASSWORDS.items()
    )
    (folder / "users.xml").write_text(
        "<yandex><profiles><default/><reading><readonly>2</readonly></reading></profiles><quotas><default/></quotas>"
        f"<users>{users}</users></yandex>"
    )
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, f"--config-file={folder / 'config.xml'}"], cwd=folder, stdout=log, stderr=log
        )
    try:
        wait(url, process, folder / "log")
        ask(url, "CREATE DATABASE tgw")
        ask(url, f"CREATE TABLE tgw.{TABLE} (a UInt64, b String) ENGINE = MergeTree ORDER BY a")
        ask(url, f"INSERT INTO tgw.{TABLE} VALUES (1, 'one'), (2, 'two'), (3, 'three')")
        named = {name: (name, password) for name, password in PASSWORDS.items()}
        yield Endpoint(url, "tgw", TABLE, named, real=True, old=True)
    finally:
        process.terminate()
        process.wait(30)


def wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            ask(url, "SELECT 1")
            return
        except httpx.HTTPError:
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            time.sleep(0.1)


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name.replace(" ", "-")) for c in cases() if c.debian])
def test_marked_cases(server: Endpoint, case: Case) -> None:
    assert faults(server, case) == []


def test_its_blocks_are_read(server: Endpoint) -> None:
    query = "SELECT number, toString(number) FROM numbers(300000)"
    packed = ask(server.url, query, compress="1").content
    plain = ask(server.url, query).content
    assert len(packed) < len(plain) / 1.2
    assert b"".join(encoding.unpack([packed], [framing.BlockUnpacker(1 << 24)])) == plain


@pytest.mark.parametrize("method", [framing.LZ4, framing.ZSTD, framing.NONE])
def test_it_reads_our_blocks(server: Endpoint, method: int) -> None:
    rows = b"".join(b"%d,packed-%d\n" % (i, method) for i in range(200_000))
    body = b"".join(encoding.pack([rows], [framing.BlockPacker(method)]))
    ask(server.url, f"INSERT INTO tgw.{TABLE} FORMAT CSV", body, decompress="1")
    found = ask(server.url, f"SELECT count(), sum(a) FROM tgw.{TABLE} WHERE b = 'packed-{method}'").text
    assert found == "200000\t19999900000\n"
