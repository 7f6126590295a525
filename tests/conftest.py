"""Workers started by tests keep their kits and locks in a folder of their own."""

import signal

import pytest

from hwnas.settings import fakes  # importing hwnas gives `profilers`, wherever tests are started

fakes.provide()  # contract suites take parts by name, these too

# A background job of a shell ignores Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def worker_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder / "hwnas-worker"
