"""Identifiers are RFC 9562 version 7, unique, and in order of time."""

import os
import threading
import time
import uuid

import pytest

from batteryops.records.identifiers import new_id, uuid7


def test_the_layout_is_that_of_the_test_vector_in_the_rfc() -> None:
    assert uuid7(0x017F22E279B0, 0xCC3, 0x18C4DC0C0C07398F) == (
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"
    )


def test_the_standard_library_reads_version_and_variant() -> None:
    parsed = uuid.UUID(new_id())
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122


def test_the_first_48_bits_are_the_milliseconds_of_the_clock() -> None:
    before = time.time_ns() // 1_000_000
    stamp = uuid.UUID(new_id()).int >> 80
    assert before - 1 <= stamp <= time.time_ns() // 1_000_000 + 1


def test_identifiers_made_one_after_the_other_sort_in_that_order() -> None:
    made = [new_id() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_a_clock_that_stands_still_or_goes_back_breaks_neither_order_nor_uniqueness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    made = [first, *(new_id() for _ in range(5000))]
    assert made == sorted(set(made))


def test_threads_never_share_an_identifier() -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend([new_id() for _ in range(2000)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8000


def test_a_child_draws_other_numbers_than_its_parent() -> None:
    new_id()  # the pool is filled
    mine, childs = os.pipe()
    child = os.fork()
    if not child:
        os.write(childs, "".join(new_id()[19:] for _ in range(50)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    drawn = os.read(mine, 65536).decode()
    os.close(mine)
    os.close(childs)
    assert len(drawn) == 50 * 17
    assert not [one for one in (new_id()[19:] for _ in range(2000)) if one in drawn]
