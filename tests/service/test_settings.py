"""Settings are refused whole, with the file, the path and what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from contract.documents import DocumentError, Strict
from service.listen import Listen
from service.settings import load


class Inner(Strict):
    rate: int = Field(default=5, ge=1)
    api_token: str = "unset"


class Example(Strict):
    name: str
    inner: Inner = Inner()
    listen: Listen = Listen()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", 'name = "x"\n[inner]\nrate = 7\n')
    assert load(path, Example, "TGW_T_") == Example(name="x", inner=Inner(rate=7))


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGW_T_INNER__RATE", "9")
    path = write(tmp_path / "a.toml", 'name = "x"\n[inner]\nrate = 7\n')
    assert load(path, Example, "TGW_T_").inner.rate == 9


def test_a_bad_value_in_the_environment_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGW_T_INNER__RATE", "fast")
    path = write(tmp_path / "a.toml", 'name = "x"\n')
    with pytest.raises(DocumentError, match=r"TGW_T_[\s\S]*inner\.rate.*integer"):
        load(path, Example, "TGW_T_")


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ('name = "x"\n[inner]\nrate = 0\n', "inner.rate", "greater than or equal to 1"),
        ('name = "x"\nnmae = "y"\n', "nmae", "not permitted"),
        ("", "name", "required"),
        ("name = \n", "", "TOML"),
        ('name = "x"\n[listen]\nhost = "0.0.0.0"\n', "listen", "token"),
        ('name = "x"\n[listen]\nhost = "0.0.0.0"\ntoken = "short"\n', "listen", "16"),
        ('name = "x"\n[listen]\nport = 70000\n', "listen.port", "65535"),
    ],
)
def test_a_bad_file_names_file_path_and_expectation(tmp_path: Path, text: str, path: str, words: str) -> None:
    file = write(tmp_path / "a.toml", text)
    with pytest.raises(DocumentError) as caught:
        load(file, Example, "TGW_T_")
    assert caught.value.source == str(file)
    assert [p.path for p in caught.value.problems] == [path]
    assert words in str(caught.value)


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", "[inner]\nrate = 0\n")
    with pytest.raises(DocumentError) as caught:
        load(file, Example, "TGW_T_")
    assert {p.path for p in caught.value.problems} == {"name", "inner.rate"}


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="No such file"):
        load(tmp_path / "none.toml", Example, "TGW_T_")


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", 'name = "x"\n[inner]\napi_token = 12345678\n')
    with pytest.raises(DocumentError) as caught:
        load(file, Example, "TGW_T_")
    assert "12345678" not in str(caught.value)


def test_a_broken_secret_in_a_block_is_not_shown(tmp_path: Path) -> None:
    file = write(tmp_path / "a.toml", 'name = "x"\n[listen]\nhost = "0.0.0.0"\ntoken = "hunter2hunter"\n')
    with pytest.raises(DocumentError) as caught:
        load(file, Example, "TGW_T_")
    assert "hunter2" not in str(caught.value)
