"""What a request's parameters and headers ask, each honoured or refused; none becomes part of a statement."""

from __future__ import annotations

import pytest

from warehouse import framing
from warehouse.refusals import Refusal
from warehouse.request import ask, for_the_engine


def refused(params: dict[str, str], headers: dict[str, str] | None = None) -> int:
    with pytest.raises(Refusal) as raised:
        ask("POST", params.items(), headers or {})
    return raised.value.code


def test_what_is_asked_of_the_transport() -> None:
    found = ask(
        "GET",
        [
            ("query", "SELECT 1"), ("database", "tgw"), ("param_a", "1"), ("extremes", "1"), ("compress", "1"),
            ("decompress", "1"), ("wait_end_of_query", "1"), ("buffer_size", "100"), ("session_id", "x"),
            ("client_protocol_version", "54405"), ("session_timeout", "60"), ("readonly", "1"),
            ("http_zlib_compression_level", "5"),
            ("", "x"),
        ],
        {"accept-encoding": "gzip", "content-encoding": "zstd", "x-clickhouse-format": "CSV"},
    )  # fmt: skip
    assert (found.database, found.form, found.revision, found.parameters) == ("tgw", "CSV", 54405, {"a": "1"})
    assert (found.by_get, found.readonly, found.wait, found.buffer) == (True, True, True, 100)
    assert (found.blocks_in, found.method_out, found.encoding_in, found.encoding_out) == (
        True,
        framing.LZ4,
        "zstd",
        "gzip",
    )
    assert found.level == 5
    assert for_the_engine(found.settings) == {"extremes": "1"}
    assert len(found.packers()) == len(found.unpackers(100)) == 2


def test_a_query_has_an_id_of_its_own_or_the_clients() -> None:
    assert ask("POST", [], {}).query_id != ask("POST", [], {}).query_id
    assert ask("POST", [("query_id", "q-1")], {}).query_id == "q-1"
    assert ask("POST", [], {"x-clickhouse-query-id": "q-2"}).query_id == "q-2"


@pytest.mark.parametrize(("method", "expected"), [("LZ4", framing.LZ4), ("zstd", framing.ZSTD), ("NONE", framing.NONE)])
def test_blocks_of_another_method_where_one_is_named(method: str, expected: int) -> None:
    assert ask("POST", [("compress", "1"), ("network_compression_method", method)], {}).method_out == expected
    assert ask("POST", [("network_compression_method", method)], {}).method_out is None


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"role": "x"}, 511),
        ({"session_check": "1"}, 372),
        ({"session_timeout": "4000"}, 374),
        ({"session_timeout": "-1"}, 374),
        ({"stacktrace": "1"}, 48),
        ({"add_http_cors_header": "1"}, 48),
        ({"http_write_exception_in_output_format": "1"}, 48),
        ({"http_response_headers": "{'a':'b'}"}, 48),
        ({"compress": "maybe"}, 36),
        ({"readonly": "3"}, 36),
        ({"client_protocol_version": "x"}, 36),
        ({"buffer_size": "²"}, 36),
        ({"query_id": "a\r\nSet-Cookie: x"}, 36),
        ({"query_id": "x" * 300}, 36),
        ({"default_format": "CSV; SET ROLE owner"}, 73),
        ({"default_format": "CSV\nSETTINGS a = 1"}, 73),
        ({"compress": "1", "network_compression_method": "T64"}, 36),
    ],
)
def test_what_is_not_done_is_refused(params: dict[str, str], code: int) -> None:
    assert refused(params) == code


@pytest.mark.parametrize("name", ["stacktrace", "add_http_cors_header", "http_write_exception_in_output_format"])
def test_whoever_does_not_ask_for_it_is_served(name: str) -> None:
    assert name not in ask("POST", [(name, "0")], {}).settings


def test_forms_and_certificates_are_refused() -> None:
    assert refused({}, {"content-type": "multipart/form-data; boundary=b"}) == 48
    assert refused({}, {"x-clickhouse-ssl-certificate-auth": "on"}) == 48
    assert refused({}, {"x-clickhouse-format": "CSV SETTINGS a = 1"}) == 73
