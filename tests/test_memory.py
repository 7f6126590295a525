import platform

import pytest

from profilers import memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")


@glibc
def test_freed_memory_goes_back_to_the_system():
    blocks = [bytearray(b"x" * 100_000) for _ in range(1000)]
    last = bytearray(b"x" * 100_000)  # keeps the heap from shrinking by itself
    del blocks
    before = memory.resident_bytes()
    memory.give_back()
    assert before - memory.resident_bytes() > 50e6
    assert len(last) == 100_000


def test_another_c_library_is_no_error(monkeypatch):
    asked = []
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: asked.append(name) or object())
    memory.give_back()
    assert asked == [None]  # the library was looked at, and what it lacks is no error
