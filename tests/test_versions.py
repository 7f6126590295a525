"""Declared versions: the lowest ones are pinned, so that continuous integration tests them."""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def declared():
    """Lowest version of each package that setup.cfg names with one, by name in lower case."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    lines = setup["options"]["install_requires"] + extras["cluster"] + extras["dev"]
    found = re.findall(r"^([\w.-]+)>=([\d.]+)$", lines, re.MULTILINE)
    return {name.lower(): version for name, version in found}


def pinned(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    return {n.lower(): v for n, v in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


def release(version):
    numbers = [int(part) for part in version.split(".")]
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers


def test_the_lowest_declared_versions_are_those_that_are_tested():
    lowest = {name: release(v) for name, v in declared().items() if name != "torch"}
    tested = {n: release(v) for n, v in pinned("constraints-lowest.txt").items() if n in lowest}
    assert tested == lowest
    assert "torch" not in pinned("constraints-lowest.txt")


def test_what_is_tested_otherwise_is_within_what_is_declared():
    newest = pinned("constraints.txt")
    for name, version in declared().items():
        assert release(newest[name]) >= release(version), name
