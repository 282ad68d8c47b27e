"""What appears in one step: whole, or nothing is left beside it."""

import errno
from pathlib import Path

import pytest

from batteryops.errors import DataError
from batteryops.files import beside, replacing


def test_a_folder_that_is_moved_appears_whole(tmp_path: Path) -> None:
    with beside(tmp_path / "made") as partial:
        partial.mkdir()
        (partial / "file").touch()
        partial.rename(tmp_path / "made")

    assert [path.name for path in tmp_path.rglob("*")] == ["made", "file"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_was_not_moved_is_gone(tmp_path: Path, kind: str) -> None:
    def interrupted() -> None:
        with beside(tmp_path / "made") as partial:
            if kind == "folder":
                (partial / "deep").mkdir(parents=True)
            else:
                partial.touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def fail() -> None:
        with replacing(file) as partial:
            partial.write_text("new")
            raise OSError(errno.ENOSPC, "no room")

    with pytest.raises(DataError, match=r"file: cannot be written \(no room\)"):
        fail()

    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
