"""Documents are refused whole, and each fault is named by its path."""

from __future__ import annotations

import contextlib
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from contract.documents import DocumentError, Problem, Strict, check, parse


class Part(Strict):
    name: str
    size: float = 1.0
    token: str | None = None


class Whole(Strict):
    kind: Literal["a", "b"]
    part: list[Part] = Field(default_factory=list)
    probe_key: int = 0


def problems(text: str | bytes, source: str = "x.toml") -> dict[str, Problem]:
    with pytest.raises(DocumentError) as caught:
        parse(text, Whole, source)
    assert caught.value.source == source
    return {p.path: p for p in caught.value.problems}


def test_toml_and_json_by_the_name_of_the_file() -> None:
    toml = parse('kind = "a"\n[[part]]\nname = "x"\n', Whole, "x.toml")
    assert toml == parse(b'{"kind": "a", "part": [{"name": "x"}]}', Whole, "x.json")
    assert toml.part[0].size == 1.0


def test_every_fault_has_its_path() -> None:
    found = problems('kind = "c"\nmore = 1\n[[part]]\nname = "x"\n[[part]]\nsize = "big"\n')
    assert set(found) == {"kind", "more", "part[1].name", "part[1].size"}
    assert found["kind"].found == "'c'"


@pytest.mark.parametrize(
    ("text", "source", "expected"),
    [
        ("kind = ", "x.toml", "expected TOML"),
        ("{", "x.json", "expected JSON"),
        (b"\xff\xfe", "x.json", "expected UTF-8"),
        ("[" * 100_000, "x.json", "expected JSON"),
        ("[" + "1" * 5000 + "]", "x.json", "expected JSON"),
        ("x = [" + "[" * 5000, "x.toml", "expected TOML"),
    ],
)
def test_what_cannot_be_read_is_one_problem_of_the_whole(text: str | bytes, source: str, expected: str) -> None:
    assert problems(text, source)[""].expected.startswith(expected)


def test_the_place_of_a_syntax_fault_is_told() -> None:
    assert "line 2" in problems('kind = "a"\n= 1\n')[""].found


def test_secrets_are_not_shown() -> None:
    found = problems('kind = "a"\nprobe_key = "0123456789"\n[[part]]\nname = "x"\ntoken = 77123\n')
    assert {p.found for p in found.values()} == {"(not shown)"}
    assert "77123" not in str(DocumentError("x", list(found.values())))


def test_long_values_are_cut_and_nested_ones_counted() -> None:
    found = problems("kind = " + '"' + "x" * 500 + '"' + "\npart = {name = 'x'}\n")
    assert len(found["kind"].found) == 80
    assert found["part"].found == "a table of 1"


@pytest.mark.parametrize("number", ["inf", "-inf", "nan"])
def test_numbers_are_finite(number: str) -> None:
    assert "part[0].size" in problems(f'kind = "a"\n[[part]]\nname = "x"\nsize = {number}\n')


def test_documents_do_not_change() -> None:
    whole = check({"kind": "a"}, Whole, "x")
    with pytest.raises(ValueError, match="frozen"):
        whole.kind = "b"


def test_the_message_counts_and_lists() -> None:
    assert str(DocumentError("f", [Problem("a", "e", "x")])) == "f: 1 problem\n  a: e (found x)"
    assert str(Problem("", "e", "x")) == "(whole document): e (found x)"


@given(st.binary(max_size=200), st.sampled_from(["x.toml", "x.json"]))
def test_any_bytes_are_a_document_or_refused(data: bytes, source: str) -> None:
    with contextlib.suppress(DocumentError):
        assert parse(data, Whole, source).kind in "ab"
