"""Download of published archives: progress, resume where it broke off, checksum, unpacking."""

import hashlib
import json
import re
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Final

import requests

from batteryops.errors import DataError

NASA_ARCHIVE_URL: Final = "https://phm-datasets.s3.amazonaws.com/NASA/5.+Battery+Data+Set.zip"
"""B. Saha and K. Goebel (2007), as NASA's Prognostics Center of Excellence publishes it."""

NASA_ARCHIVE_SHA256: Final = "82302a7db4fc1b34e0b6676326610438d43b816bdf11a69d1d012a464ef2f92e"
"""What three public projects, independently of each other, recorded for the archive above,
209,708,670 bytes long. NASA itself publishes no checksum."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes there so far, and the total where the server tells it."""

_CHUNK_BYTES: Final = 1 << 16
_MAX_NESTING: Final = 3
_MAX_UNPACKED_BYTES: Final = 1 << 33
_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-\d+/(\d+)")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class _BrokenOffError(Exception):
    """The transfer stopped before its end; another attempt may finish it."""


_PASSING: Final = (
    _BrokenOffError,
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
)


def fetch(  # noqa: PLR0913, what can be set about a download; only the first two are usual
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    timeout_s: float = 30.0,
    retries: int = 3,
    pause_s: float = 1.0,
) -> str:
    """Download a file.

    Bytes go to `<target>.part`. A transfer that breaks off is taken up where it stopped, now or
    by the next call, if the server says by `If-Range` that the file is still the same one (its
    strong ETag, else its date); otherwise it starts anew. A complete, verified file takes the
    target's place in one step. A target that already has the checksum asked for is left as it is.

    Args:
        url: http or https.
        target: the file to write.
        sha256: hexadecimal checksum it must have; None takes any.
        progress: told of bytes as they arrive.
        timeout_s: longest silence of the server, in seconds.
        retries: attempts after the first.
        pause_s: pause before the first retry, doubled for each further one.

    Returns:
        The SHA-256 of the file, 64 hexadecimal digits.

    Raises:
        DataError: no such file there, no connection, too little disk space, or another checksum
            (then nothing is kept).
    """
    if not url.startswith(("http://", "https://")):
        raise DataError(f"address {url!r} does not start with http:// or https://")
    expected = None if sha256 is None else sha256.strip().lower()
    if expected is not None and not _SHA256.fullmatch(expected):
        raise DataError(f"checksum {sha256!r} is no SHA-256; expected 64 hexadecimal digits")
    part = target.with_name(f"{target.name}.part")
    note = target.with_name(f"{target.name}.part.json")
    with _writing(target):
        if expected is not None and target.is_file() and _digest(target) == expected:
            return expected
        target.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, note, progress, timeout_s, retries, pause_s)
        found = _digest(part)
        if expected is not None and found != expected:
            part.unlink()
            note.unlink(missing_ok=True)
            raise DataError(
                f"{url}: the file has SHA-256 {found}, expected {expected}; nothing was kept. "
                "Check the address and the checksum, and try again"
            )
        part.replace(target)
        note.unlink(missing_ok=True)
    return found


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error})") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(  # noqa: PLR0913, PLR0917, the settings of `fetch`, passed on
    url: str,
    part: Path,
    note: Path,
    progress: Progress | None,
    timeout_s: float,
    retries: int,
    pause_s: float,
) -> None:
    with requests.Session() as session:
        session.headers["Accept-Encoding"] = "identity"  # bytes as stored, so that ranges fit
        for attempt in range(retries + 1):
            if attempt:
                time.sleep(pause_s * 2 ** (attempt - 1))
            try:
                _attempt(session, url, part, note, progress, timeout_s)
            except _PASSING as error:
                problem = _reason(error)
            except requests.RequestException as error:
                raise DataError(f"{url}: cannot be fetched ({_reason(error)})") from error
            else:
                return
    kept = part.stat().st_size if part.is_file() else 0
    raise DataError(
        f"{url}: the transfer failed {retries + 1} times, at last with: {problem}. "
        + (
            f"{kept} bytes are kept in {part}; run the same again to go on"
            if kept
            else "Check the address and the connection, and try again"
        )
    )


def _reason(error: Exception) -> str:
    """The innermost cause, which says more than the layers around it."""
    reason: BaseException = error
    while reason.args and isinstance(reason.args[0], BaseException):
        reason = reason.args[0]
    inner = getattr(reason, "reason", None)
    return str(inner) if isinstance(inner, BaseException) else str(reason)


def _attempt(  # noqa: PLR0913, PLR0917, the settings of `fetch`, passed on
    session: requests.Session,
    url: str,
    part: Path,
    note: Path,
    progress: Progress | None,
    timeout_s: float,
) -> None:
    """Bring `part` to its end, from where it stands if that can be proven to be the same file."""
    done, validator = _resumable(url, part, note)
    headers = {"Range": f"bytes={done}-", "If-Range": validator} if done else {}
    with session.get(url, headers=headers, stream=True, timeout=timeout_s) as response:
        status = response.status_code
        if status == requests.codes.range_not_satisfiable:
            if response.headers.get("Content-Range") == f"bytes */{done}":
                return  # it was complete
            note.unlink(missing_ok=True)
            raise _BrokenOffError(f"the server has no byte {done} of it any more")
        if status == requests.codes.too_many_requests or status >= requests.codes.server_error:
            raise _BrokenOffError(f"the server answered {status} {response.reason}")
        if status == requests.codes.partial_content:
            total: int | None = _rest(response, done, note)
        elif status == requests.codes.ok:
            done, total = 0, _length(response)
            _remember(url, response, note)
        else:
            raise DataError(
                f"{url}: the server answered {status} {response.reason}; check the address"
            )
        _refuse_full_disk(part, done, total)
        with part.open("ab" if done else "wb") as file:
            _report(progress, done, total)
            for chunk in response.iter_content(_CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                _report(progress, done, total)
    if total is not None and done != total:
        raise _BrokenOffError(f"{done} of {total} bytes arrived")


def _report(progress: Progress | None, done: int, total: int | None) -> None:
    if progress is not None:
        progress(done, total)


def _resumable(url: str, part: Path, note: Path) -> tuple[int, str]:
    """How many bytes of which version of the file are there: (0, "") when that is not known."""
    try:
        remembered = json.loads(note.read_text())
        done = part.stat().st_size
    except (OSError, ValueError):
        return 0, ""
    match remembered:
        case {"url": str(origin), "validator": str(validator)} if origin == url:
            return done, validator
        case _:
            return 0, ""


def _remember(url: str, response: requests.Response, note: Path) -> None:
    etag = response.headers.get("ETag", "")
    # a weak ETag does not promise equal bytes, and If-Range refuses it
    validator = etag if etag and not etag.startswith("W/") else None
    validator = validator or response.headers.get("Last-Modified")
    if validator and "Content-Encoding" not in response.headers:
        note.write_text(json.dumps({"url": url, "validator": validator}))
    else:
        note.unlink(missing_ok=True)


def _length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() and "Content-Encoding" not in response.headers else None


def _rest(response: requests.Response, done: int, note: Path) -> int:
    """The whole file's length, from an answer that begins at byte `done`."""
    given = response.headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(given)
    if done == 0 or match is None or int(match[1]) != done:
        note.unlink(missing_ok=True)
        raise _BrokenOffError(f"the server sent the range {given!r} where byte {done} was next")
    return int(match[2])


def _refuse_full_disk(part: Path, done: int, total: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - done > free:
        raise DataError(
            f"{part.parent}: {total - done} bytes are still to come and {free} are free; "
            "make room or choose another folder"
        )


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Extract the `.mat` files of an archive, and of the archives within it, into one folder.

    NASA's archive holds zips, and cells B0025 to B0028 twice, in two of them; of files with one
    name and different content the longer is kept. Files appear in the folder only once all could
    be extracted.

    Args:
        archive: a zip.
        folder: where the files go; made if needed.

    Returns:
        The files, sorted.

    Raises:
        DataError: no zip, a corrupt or encrypted one, one without a `.mat`, one that names a
            place outside of the folder, or one that would unpack to more than 8 GiB.
    """
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".unpack-") as scratch:
            files: dict[str, Path] = {}
            try:
                with archive.open("rb") as opened:
                    _extract(opened, str(archive), Path(scratch), files, depth=1)
            except FileNotFoundError as error:
                raise DataError(f"{archive}: no such file; fetch it first") from error
            if not files:
                raise DataError(f"{archive}: no .mat file in it; expected NASA's battery archive")
            for name, file in files.items():
                file.replace(folder / name)
    return sorted(folder / name for name in files)


def _extract(
    opened: IO[bytes], name: str, scratch: Path, files: dict[str, Path], *, depth: int
) -> None:
    """Put the `.mat` files of one zip, and of those in it, under `scratch`, named in `files`."""
    if depth > _MAX_NESTING:
        raise DataError(f"{name}: zips nested more than {_MAX_NESTING} deep")
    try:
        with zipfile.ZipFile(opened) as zipped:
            members = [member for member in zipped.infolist() if not member.is_dir()]
            for member in members:
                _refuse_outside(member.filename, name)
            if sum(member.file_size for member in members) > _MAX_UNPACKED_BYTES:
                raise DataError(f"{name}: would unpack to more than {_MAX_UNPACKED_BYTES} bytes")
            for member in members:
                path = PurePosixPath(member.filename)
                if path.name.startswith("._"):
                    continue  # what macOS adds
                if path.suffix.lower() == ".zip":
                    with tempfile.TemporaryFile(dir=scratch) as inner, zipped.open(member) as data:
                        shutil.copyfileobj(data, inner)
                        _extract(
                            inner, f"{name}: {member.filename}", scratch, files, depth=depth + 1
                        )
                elif path.suffix.lower() == ".mat" and (
                    path.name not in files or files[path.name].stat().st_size < member.file_size
                ):
                    with zipped.open(member) as data, (scratch / path.name).open("wb") as out:
                        shutil.copyfileobj(data, out)
                    files[path.name] = scratch / path.name
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # RuntimeError: encrypted, or (as NotImplementedError) a compression that is not known
        raise DataError(f"{name}: cannot be unpacked ({error}); fetch it again") from error


def _refuse_outside(member: str, name: str) -> None:
    path = PurePosixPath(member.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DataError(
            f"{name}: holds {member!r}, which would be written outside of the folder; "
            "nothing was unpacked, do not trust this archive"
        )
