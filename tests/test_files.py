"""What is made of files follows them, and stays as it was while they are bad."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from servicecatalog_grpc.files import Reloaded
from waiting import wait_for

Log = pytest.LogCaptureFixture


@pytest.fixture(autouse=True)
def _all_levels(caplog: Log) -> None:
    caplog.set_level(logging.INFO)


class Number(Reloaded[int]):
    """The number in a file."""

    def __init__(self, path: Path) -> None:
        super().__init__("the number", [path], lambda: int(path.read_text()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_text("1")
    return path


def said(caplog: Log) -> list[str]:
    """Return what was logged since the last time, each line with its level."""
    lines = [f"{record.levelname} {record.getMessage()}" for record in caplog.records]
    caplog.clear()
    return lines


def test_it_is_loaded_at_once_and_says_nothing(path: Path, caplog: Log) -> None:
    assert Number(path).value == 1
    assert said(caplog) == []


def test_what_cannot_be_loaded_at_first_is_raised(path: Path, tmp_path: Path) -> None:
    path.write_text("one")
    with pytest.raises(ValueError, match="one"):
        Number(path)
    with pytest.raises(FileNotFoundError):
        Number(tmp_path / "nothing")


def test_a_change_is_loaded_and_told_once(path: Path, caplog: Log) -> None:
    number = Number(path)
    path.write_text("2")
    number.check()
    number.check()
    assert number.value == 2
    assert said(caplog) == ["INFO the number: reloaded"]


def test_a_change_that_changes_neither_size_nor_times_nor_file_is_loaded(path: Path) -> None:
    number = Number(path)
    before = path.stat()
    path.write_text("2")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    number.check()
    assert number.value == 2


def test_a_file_that_is_touched_or_replaced_by_its_like_is_no_change(path: Path, tmp_path: Path, caplog: Log) -> None:
    number = Number(path)
    path.touch()
    number.check()
    (tmp_path / "new").write_text("1")
    (tmp_path / "new").replace(path)
    number.check()
    assert said(caplog) == []


def test_a_link_on_the_way_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes changes its Secrets and ConfigMaps: NAME leads to ..data/NAME, and ..data to a directory."""
    for version in "12":
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "number").write_text(version)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "number").symlink_to("..data/number")
    number = Number(tmp_path / "number")
    (tmp_path / "..tmp").symlink_to("..2")
    (tmp_path / "..tmp").replace(tmp_path / "..data")
    number.check()
    assert number.value == 2


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_text("two"), "invalid literal for int() with base 10: 'two'"),
        (Path.unlink, "No such file or directory"),
        (lambda path: (path.unlink(), path.mkdir()), "Is a directory"),
    ],
    ids=["bad", "missing", "directory"],
)
def test_what_is_bad_leaves_the_old_value_and_is_told_once(path: Path, caplog: Log, spoil: Any, why: str) -> None:
    number = Number(path)
    spoil(path)
    number.check()
    number.check()
    assert number.value == 1
    (line,) = said(caplog)
    assert line.startswith("WARNING the number: kept the old one, because the new one is bad: ")
    assert line.endswith(why)


def test_each_bad_change_is_told(path: Path, caplog: Log) -> None:
    number = Number(path)
    for text in ("two", "three", "two"):
        path.write_text(text)
        number.check()
    assert len(said(caplog)) == 3


@pytest.mark.parametrize("good", ["1", "2"])
def test_that_it_is_good_again_is_told_too(path: Path, caplog: Log, good: str) -> None:
    number = Number(path)
    path.write_text("two")
    number.check()
    path.write_text(good)
    number.check()
    number.check()
    assert number.value == int(good)
    assert said(caplog)[1:] == ["INFO the number: reloaded"]


def test_what_becomes_good_by_itself_is_found_out(path: Path, caplog: Log) -> None:
    good = True

    def load() -> str:
        if not good:
            raise ValueError("not yet")
        return path.read_text()

    reloaded = Reloaded("it", [path], load)
    good = False
    path.write_text("2")
    reloaded.check()
    good = True
    reloaded.check()
    assert reloaded.value == "2"
    assert [line.split()[0] for line in said(caplog)] == ["WARNING", "INFO"]


def test_a_thread_looks_by_itself_until_it_is_stopped(path: Path) -> None:
    number = Number(path)
    number.start()
    path.write_text("2")
    wait_for(lambda: number.value == 2)
    number.stop()
