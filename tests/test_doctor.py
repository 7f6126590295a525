"""What doctor finds: engines with their versions, or what is missing with the command."""

import onnxruntime
import pytest

from hwnas.boards import catalog, doctor
from hwnas.measuring import remote
from hwnas.settings.targets import REFERENCE
from profilers import runtimes
from profilers.errors import RuntimeMissingError


def test_every_engine_is_looked_for_and_only_the_first_is_needed():
    assert set(catalog.engines()) == set(runtimes.names()) - {"fake"}
    found = [doctor._engine(name) for name in catalog.engines()]
    (reference,) = [finding for finding in found if finding.needed]
    assert (reference.what, reference.ok) == (f"engine {REFERENCE}", True)
    assert reference.state.startswith(onnxruntime.__version__)
    for finding in found:
        assert finding.ok != bool(finding.fix)


@pytest.mark.parametrize("text", ["no driver; install it", "no driver"])
def test_a_missing_engine_is_told_with_what_to_do(monkeypatch, text):
    def missing(target):
        raise RuntimeMissingError(text)

    monkeypatch.setattr(remote, "probe", missing)
    found = doctor._engine("tensorrt")
    assert (found.ok, found.state) == (False, "no driver")
    assert found.fix in ("install it", "see the message")
