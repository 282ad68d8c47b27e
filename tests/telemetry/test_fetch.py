import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from batteryops.errors import DataError
from batteryops.telemetry.fetch import NASA_ARCHIVE_SHA256, NASA_ARCHIVE_URL, fetch, unpack

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FileServer:
    """Serves one file at /file, as well or as badly as its fields say, and notes the requests."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag: str | None = '"v1"'
        self.date: str | None = None
        self.ranges = True
        self.cut_after: list[int] = []  # bytes after which each next answer breaks off
        self.statuses: list[int] = []  # answers before the file
        self.length = True
        self.wrong_range: str | None = None
        self.requested: list[tuple[str | None, str | None]] = []
        self.url = ""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked, condition = request.headers["Range"], request.headers["If-Range"]
        self.requested.append((asked, condition))
        if request.path != "/file":
            request.send_error(404)
            return
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        start = 0
        if self.ranges and asked and condition in {self.etag, self.date}:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])  # type: ignore[index]  # fetch sends no other form
            if start >= len(self.content):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(self.content)}")
                request.send_header("Content-Length", "0")
                request.end_headers()
                return
            span = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            request.send_response(206)
            request.send_header("Content-Range", self.wrong_range or span)
        else:
            request.send_response(200)
        if self.length:
            request.send_header("Content-Length", str(len(self.content) - start))
        for name, value in (("ETag", self.etag), ("Last-Modified", self.date)):
            if value is not None:
                request.send_header(name, value)
        request.end_headers()
        body = self.content[start:]
        request.wfile.write(body[: self.cut_after.pop(0)] if self.cut_after else body)
        request.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    files = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            files.answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, http.server names it so
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        files.url = f"http://127.0.0.1:{listening.server_port}/file"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield files
        listening.shutdown()
        thread.join()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_with_progress_and_its_checksum_returned(
    server: FileServer, tmp_path: Path
) -> None:
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "made" / "archive.zip"

    checksum = fetch(server.url, target, progress=lambda done, total: seen.append((done, total)))

    assert checksum == SHA256
    assert target.read_bytes() == CONTENT
    assert names(target.parent) == ["archive.zip"]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_without_a_length_the_total_is_not_known(server: FileServer, tmp_path: Path) -> None:
    server.length = False
    totals: set[int | None] = set()

    fetch(server.url, tmp_path / "f", progress=lambda _done, total: totals.add(total))

    assert totals == {None}


def test_a_connection_cut_in_the_middle_is_taken_up_where_it_stopped(
    server: FileServer, tmp_path: Path
) -> None:
    server.cut_after = [200_000, 100_000]

    fetch(server.url, tmp_path / "f", sha256=SHA256.upper(), pause_s=0.0)

    assert (tmp_path / "f").read_bytes() == CONTENT
    (first, _), (second, condition), (third, _) = server.requested
    assert first is None
    assert condition == '"v1"'
    assert second is not None
    assert third is not None
    assert 0 < int(second[6:-1]) <= 200_000 < int(third[6:-1]) <= 300_000


def test_the_next_call_takes_up_what_an_earlier_one_left(
    server: FileServer, tmp_path: Path
) -> None:
    server.cut_after = [200_000]
    with pytest.raises(DataError, match=r"bytes are kept in .*f\.part; run the same again"):
        fetch(server.url, tmp_path / "f", retries=0)
    assert names(tmp_path) == ["f.part", "f.part.json"]
    kept = (tmp_path / "f.part").stat().st_size

    fetch(server.url, tmp_path / "f", sha256=SHA256)

    assert server.requested[-1] == (f"bytes={kept}-", '"v1"')
    assert names(tmp_path) == ["f"]


def test_the_date_stands_in_where_there_is_no_strong_etag(
    server: FileServer, tmp_path: Path
) -> None:
    server.etag, server.date = 'W/"v1"', "Wed, 01 May 2024 08:00:00 GMT"
    server.cut_after = [200_000]

    fetch(server.url, tmp_path / "f", sha256=SHA256, pause_s=0.0)

    assert server.requested[-1][1] == "Wed, 01 May 2024 08:00:00 GMT"


def test_a_file_that_changed_meanwhile_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [200_000]
    with pytest.raises(DataError):
        fetch(server.url, tmp_path / "f", retries=0)
    server.content, server.etag = CONTENT[::-1], '"v2"'

    checksum = fetch(server.url, tmp_path / "f")

    assert server.requested[-1][1] == '"v1"'  # the server saw that it is another version
    assert (tmp_path / "f").read_bytes() == CONTENT[::-1]
    assert checksum == hashlib.sha256(CONTENT[::-1]).hexdigest()


@pytest.mark.parametrize("etag", ['"v1"', None])
def test_a_server_without_ranges_is_asked_for_the_whole_again(
    server: FileServer, tmp_path: Path, etag: str | None
) -> None:
    server.ranges, server.etag = False, etag
    server.cut_after = [200_000]

    fetch(server.url, tmp_path / "f", sha256=SHA256, pause_s=0.0)

    assert (tmp_path / "f").read_bytes() == CONTENT
    assert (server.requested[-1][0] is None) == (etag is None)


def test_a_part_of_another_address_is_not_taken_up(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(b"something else")
    (tmp_path / "f.part.json").write_text('{"url": "http://example.org/f", "validator": "v1"}')

    fetch(server.url, tmp_path / "f", sha256=SHA256)

    assert server.requested == [(None, None)]


@pytest.mark.parametrize("note", ["", "no JSON", "[1]", '{"url": 1}'])
def test_a_part_of_unknown_origin_is_not_taken_up(
    server: FileServer, tmp_path: Path, note: str
) -> None:
    (tmp_path / "f.part").write_bytes(b"something else")
    (tmp_path / "f.part.json").write_text(note)

    fetch(server.url, tmp_path / "f", sha256=SHA256)

    assert server.requested == [(None, None)]


def test_a_part_that_was_complete_needs_no_more_bytes(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT)
    note = '{"url": "URL", "validator": "\\"v1\\""}'.replace("URL", server.url)
    (tmp_path / "f.part.json").write_text(note)

    assert fetch(server.url, tmp_path / "f", sha256=SHA256) == SHA256
    assert names(tmp_path) == ["f"]


def test_a_part_longer_than_the_file_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT + b"and more")
    note = '{"url": "URL", "validator": "\\"v1\\""}'.replace("URL", server.url)
    (tmp_path / "f.part.json").write_text(note)

    assert fetch(server.url, tmp_path / "f", sha256=SHA256, pause_s=0.0) == SHA256


def test_a_range_that_was_not_asked_for_is_not_appended(server: FileServer, tmp_path: Path) -> None:
    server.cut_after = [200_000]
    server.wrong_range = "bytes 7-511999/512000"

    fetch(server.url, tmp_path / "f", sha256=SHA256, pause_s=0.0)

    assert [asked is None for asked, _ in server.requested] == [True, False, True]


def test_a_wrong_checksum_keeps_nothing(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"SHA-256 {SHA256}, expected {'0' * 64}; nothing was kept"):
        fetch(server.url, tmp_path / "f", sha256="0" * 64)

    assert names(tmp_path) == []


def test_a_wrong_checksum_leaves_the_file_that_stood_there(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "f").write_text("before")

    with pytest.raises(DataError):
        fetch(server.url, tmp_path / "f", sha256="0" * 64)

    assert (tmp_path / "f").read_text() == "before"


def test_a_file_that_is_there_with_its_checksum_is_not_fetched_again(
    server: FileServer, tmp_path: Path
) -> None:
    (tmp_path / "f").write_bytes(CONTENT)

    assert fetch(server.url, tmp_path / "f", sha256=SHA256) == SHA256
    assert server.requested == []


def test_a_file_that_does_not_exist_is_refused_at_once(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="/other: the server answered 404 Not Found; check"):
        fetch(server.url.replace("/file", "/other"), tmp_path / "f")

    assert len(server.requested) == 1
    assert names(tmp_path) == []


def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 429]

    assert fetch(server.url, tmp_path / "f", pause_s=0.0) == SHA256


def test_a_server_that_stays_broken_is_told(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [500] * 3

    with pytest.raises(DataError, match="failed 3 times, at last with: the server answered 500"):
        fetch(server.url, tmp_path / "f", retries=2, pause_s=0.0)


def test_a_refused_connection_is_told(server: FileServer, tmp_path: Path) -> None:
    nobody = re.sub(r":\d+/", ":1/", server.url)

    with pytest.raises(DataError, match=r"failed 2 times, at last with: .*[Rr]efused"):
        fetch(nobody, tmp_path / "f", retries=1, pause_s=0.0)


@pytest.mark.parametrize("url", ["ftp://example.org/f", "/etc/hosts", ""])
def test_other_kinds_of_address_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="does not start with http"):
        fetch(url, tmp_path / "f")


def test_an_address_without_a_host_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch("http://", tmp_path / "f")


def test_a_checksum_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no SHA-256; expected 64 hexadecimal digits"):
        fetch("http://example.org", tmp_path / "f", sha256="abc")


def test_a_full_disk_is_told(server: FileServer, tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    (tmp_path / "f.part").symlink_to(full)

    with pytest.raises(DataError, match=r"f: cannot be written .*No space left"):
        fetch(server.url, tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_file_larger_than_the_free_space_is_refused_before_it_is_fetched(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 1000

    monkeypatch.setattr("batteryops.telemetry.fetch.shutil.disk_usage", lambda _: Usage)

    with pytest.raises(DataError, match="512000 bytes are still to come and 1000 are free"):
        fetch(server.url, tmp_path / "f")


def test_a_folder_that_cannot_be_made_is_told(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(DataError, match="cannot be written"):
        fetch(server.url, tmp_path / "file" / "f")


def test_nasas_archive_is_named_with_its_checksum() -> None:
    assert NASA_ARCHIVE_URL.startswith("https://")
    assert re.fullmatch("[0-9a-f]{64}", NASA_ARCHIVE_SHA256)


Members = dict[str, bytes]


def zipped(members: Members) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Callable[[Members], Path]:
    def make(members: Members) -> Path:
        path = tmp_path / "archive.zip"
        path.write_bytes(zipped(members))
        return path

    return make


def test_mat_files_are_taken_out_of_zips_within_the_zip(
    archive: Callable[[Members], Path], tmp_path: Path
) -> None:
    path = archive(
        {
            "5. Battery Data Set/1. FY08Q4.zip": zipped(
                {"B0005.mat": b"five", "README.txt": b"read", "__MACOSX/._B0005.mat": b"mac"}
            ),
            "5. Battery Data Set/3. more.zip": zipped({"sub/B0025.mat": b"twenty-five"}),
            "B0018.mat": b"eighteen",
        }
    )

    files = unpack(path, tmp_path / "out")

    assert [file.name for file in files] == ["B0005.mat", "B0018.mat", "B0025.mat"]
    assert names(tmp_path / "out") == ["B0005.mat", "B0018.mat", "B0025.mat"]
    assert (tmp_path / "out" / "B0005.mat").read_bytes() == b"five"


def test_of_two_files_with_one_name_the_longer_is_kept(
    archive: Callable[[Members], Path], tmp_path: Path
) -> None:
    path = archive(
        {
            "a.zip": zipped({"B0025.mat": b"part"}),
            "b.zip": zipped({"B0025.mat": b"the whole of it"}),
            "c.zip": zipped({"B0025.mat": b"a part"}),
        }
    )

    (file,) = unpack(path, tmp_path / "out")

    assert file.read_bytes() == b"the whole of it"


@pytest.mark.parametrize(
    "name",
    ["../B0005.mat", "/srv/B0005.mat", "a/../../B0005.mat", "..\\B0005.mat", "C:/B0005.mat"],
)
def test_a_member_that_points_outside_is_refused_and_nothing_unpacked(
    archive: Callable[[Members], Path], tmp_path: Path, name: str
) -> None:
    path = archive({"B0006.mat": b"good", "in.zip": zipped({"B0007.mat": b"good", name: b"bad"})})

    with pytest.raises(DataError, match="would be written outside of the folder"):
        unpack(path, tmp_path / "out")

    assert names(tmp_path / "out") == []
    assert names(tmp_path) == ["archive.zip", "out"]


def test_a_file_that_is_no_zip_or_damaged_is_refused(
    archive: Callable[[Members], Path], tmp_path: Path
) -> None:
    path = archive({"B0005.mat": bytes(5000) + CONTENT})
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"archive\.zip: cannot be unpacked"):
        unpack(path, tmp_path / "out")

    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"archive\.zip: cannot be unpacked .*; fetch it again"):
        unpack(path, tmp_path / "out")

    path.unlink()
    with pytest.raises(DataError, match=r"archive\.zip: no such file; fetch it first"):
        unpack(path, tmp_path / "out")
    assert names(tmp_path / "out") == []


def test_a_damaged_zip_within_the_zip_is_named(
    archive: Callable[[Members], Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"archive\.zip: inner\.zip: cannot be unpacked"):
        unpack(archive({"inner.zip": b"no zip"}), tmp_path / "out")


def test_an_archive_without_mat_files_is_refused(
    archive: Callable[[Members], Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"no \.mat file in it"):
        unpack(archive({"README.txt": b"read"}), tmp_path / "out")


def test_zips_nested_without_end_are_refused(
    archive: Callable[[Members], Path], tmp_path: Path
) -> None:
    inner = zipped({"B0005.mat": b"five"})
    for _ in range(3):
        inner = zipped({"inner.zip": inner})

    with pytest.raises(DataError, match="zips nested more than 3 deep"):
        unpack(archive({"inner.zip": inner}), tmp_path / "out")


def test_an_archive_that_would_fill_the_disk_is_refused(
    archive: Callable[[Members], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batteryops.telemetry.fetch._MAX_UNPACKED_BYTES", 100)

    with pytest.raises(DataError, match="would unpack to more than 100 bytes"):
        unpack(archive({"B0005.mat": bytes(101)}), tmp_path / "out")
