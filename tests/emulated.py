"""An emulated aarch64 board: what .ci/emulated-board set up, for tests of everything but times."""

import os
import shutil
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("HWNAS_EMULATED_BOARD", "~/.cache/hwnas/emulated-board")).expanduser()


def need_emulated_board():
    """The board's Python; skips where it is not set up, and fails in CI, which sets it up."""
    if (FOLDER / "ready").is_file() and shutil.which("qemu-aarch64-static"):
        return FOLDER / "python"
    reason = "no emulated board: apt-get install qemu-user-static, then bash .ci/emulated-board"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
