"""What pip builds of this project holds all that the commands need, and one name at its top."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy
import pytest
import yaml

import hwnas
from hwnas.commands import demo
from hwnas.settings import shipped, versions
from profilers.errors import ConfigError

ROOT = Path(__file__).parent.parent
OTHERS = Path(numpy.__file__).parents[1]  # the packages that hwnas needs, and not hwnas itself
BUILD = """
import sys
from setuptools import build_meta
build_meta.build_wheel(sys.argv[1])
"""


def built(sources, folder):
    """The wheel of some sources, unpacked as pip would install it."""
    folder.mkdir()
    command = [sys.executable, "-W", "ignore", "-c", BUILD, str(folder)]
    subprocess.run(command, cwd=sources, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "runs", "build", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, folder / "sources", ignore=ignored)
    return built(folder / "sources", folder / "built")


def python(site, folder, *words):
    """Run Python where the wheel is installed and this repository is not."""
    env = {"PYTHONPATH": f"{site}:{OTHERS}", "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-S", *map(str, words)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def command(site, folder, *words):
    return python(site, folder, "-m", "hwnas", *words)


def test_a_wheel_puts_one_name_into_site_packages(site):
    assert {path.name for path in site.iterdir() if path.suffix != ".dist-info"} == {"hwnas"}
    assert not [p for p in site.rglob("*") if p.name in ("tests", "benchmarks", "docs")]


def test_every_file_that_is_read_at_run_time_is_in_the_wheel(site):
    top = {name: f"_top/{name}" for name in ("profilers", "latency_tables", "examples")}
    for name, place in {"hwnas": "", **top}.items():
        wanted = {p.relative_to(ROOT / name) for p in (ROOT / name).rglob("*") if p.is_file()}
        wanted = {p for p in wanted if not {"__pycache__", "runs", "build"} & set(p.parts)}
        missing = [p for p in wanted if not (site / "hwnas" / place / p).is_file()]
        assert wanted
        assert not missing


def test_the_worker_of_a_wheel_is_ours_and_its_code_has_the_hash_of_the_repository(site, tmp_path):
    code = "from hwnas.settings import versions; import profilers\n"  # which hwnas brings
    code += "print(profilers.__file__, versions.code())"
    where, version = python(site, tmp_path, "-c", code).stdout.split()
    assert Path(where) == site / "hwnas" / "_top" / "profilers" / "__init__.py"
    assert version == versions.code()
    assert python(site, tmp_path, "-c", "import profilers").returncode == 1


def test_commands_of_a_wheel_find_what_ships_with_it(site, tmp_path):
    listed = command(site, tmp_path, "table", "list")
    assert f"in {site}" in listed.stdout.replace("\n", "")
    assert command(site, tmp_path, "--version").stdout == f"hwnas {hwnas.__version__}\n"
    measured = command(site, tmp_path, "doctor", "--json").stdout
    assert '"what": "engine ort-cpu",\n    "ok": true' in measured


def test_a_wheel_without_its_data_says_so_in_one_line(site, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(site, broken)
    shutil.rmtree(broken / "hwnas" / "_top" / "latency_tables")
    shutil.rmtree(broken / "hwnas" / "_top" / "examples")
    for words in (("table", "list"), ("demo", "new")):
        ended = command(broken, tmp_path, *words)
        assert (ended.returncode, ended.stdout) == (2, ""), ended.stderr
        assert ended.stderr.startswith("hwnas: hwnas is incomplete: ")
        assert ended.stderr.endswith("; install it again\n")
    assert not (tmp_path / "new").exists()
    shutil.rmtree(broken / "hwnas" / "_top" / "profilers")
    ended = command(broken, tmp_path, "--version")
    assert "ImportError: hwnas is incomplete: " in ended.stderr.splitlines()[-1]


def test_another_package_of_the_workers_name_is_not_taken_for_it(site, tmp_path):
    other = tmp_path / "other" / "profilers"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("")
    names = "import sys; sys.path.insert(0, 'other'); "
    fine = python(site, tmp_path, "-c", names + "import hwnas, profilers.stats")
    assert fine.returncode == 0, fine.stderr
    late = python(site, tmp_path, "-c", names + "import profilers, hwnas")
    assert "import hwnas first" in late.stderr.splitlines()[-1]


def test_the_demo_writes_its_settings_once(tmp_path):
    path = demo.settings_in(tmp_path / "new")
    assert path.read_bytes() == (shipped.folder("examples") / "digits.yaml").read_bytes()
    path.write_text(yaml.safe_dump({"run": "mine"}))
    assert yaml.safe_load(demo.settings_in(tmp_path / "new").read_text()) == {"run": "mine"}


def test_a_demo_in_a_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"^cannot write [^\n]*file/digits.yaml"):
        demo.settings_in(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_the_release_workflow_is_disabled_and_runs_what_there_is():
    path = ROOT / "docs" / "ci" / "release.yml"
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    steps = [step.get("run", "") for step in jobs["build"]["steps"]]
    assert "bash .ci/wheel" in steps
    assert (ROOT / ".ci" / "wheel").is_file()
    assert jobs["publish"]["needs"] == "build"
    assert not (ROOT / ".github" / "workflows").exists()
