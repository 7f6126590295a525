"""The report that follows a run: `hwnas report --serve`, a real process, a real browser."""

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import test_report
from browser import Browser

from profilers.schema import append_lines

TARGET = test_report.TARGET
SETTINGS = f"run: run\ndata: {{kind: digits}}\nspace: {{resolutions: [16]}}\ntargets: [{TARGET}]\n"


@pytest.fixture
def served(tmp_path):
    """A folder with settings and no run, the server's process, and its address."""
    (tmp_path / "hwnas.yaml").write_text(SETTINGS)
    command = [sys.executable, "-m", "hwnas", "report", "--serve", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stdout.readline()
        assert line.startswith("report of run: http://127.0.0.1:"), line + process.stderr.read()
        yield tmp_path, process, line.split()[3]
        process.kill()


def test_the_address_is_one_document_of_json_where_that_is_asked_for(tmp_path):
    (tmp_path / "hwnas.yaml").write_text(SETTINGS)
    command = [sys.executable, "-m", "hwnas", "report", "--serve", "--port", "0", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            told = json.loads(process.stdout.readline())
            assert told["run"] == "run"
            assert _status(told["address"] + "state")[0] == 200
        finally:
            process.kill()


def _status(address, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_the_page_follows_a_run_from_before_it_begins_and_ends_with_ctrl_c(served):
    folder, process, address = served
    browser = Browser(folder / "profile")
    browser.open(address)
    browser.wait("document.body.textContent.includes('run does not exist')")
    run = test_report._run(folder / "run")
    (run / "config.json").unlink()  # a run that goes on has not written its settings yet
    browser.wait("document.documentElement.dataset.ready == 'yes'")
    browser.wait("document.querySelector('.point') !== null")
    browser.wait("document.querySelector('.answers').textContent.includes('Ship best')")
    browser.run("document.querySelector('.warn').open = true; document.body.kept = 'yes'")
    events = [{"stage": "train", "step": n, "labels_max": 1 / n} for n in range(1, 40)]
    append_lines(run / "events.jsonl", events)
    browser.wait("document.querySelector('.state').textContent.includes('events.jsonl changed')")
    browser.wait("document.querySelector('#curve .curve').getAttribute('d').length > 300")
    assert browser.run("document.body.kept") == "yes"  # drawn anew, not loaded anew
    assert browser.run("document.querySelector('.warn').open")
    assert {url.removeprefix(address) for url in browser.requests()} <= {"", "state", "favicon.ico"}
    assert all("503" in told for told in browser.problems())  # before there was a run
    browser.close()
    assert not (run / "report.html").exists()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert process.stderr.read() == ""


def test_the_server_gives_away_the_page_and_packages_to_this_machine_only(served):
    folder, _, address = served
    run = test_report._run(folder / "run")
    model = f"packages/{TARGET}/best/model.onnx"
    assert _status(address + model) == (200, (run / model).read_bytes())
    for path in (
        "../hwnas.yaml",
        "packages/../config.json",
        "config.json",
        "%2e%2e/hwnas.yaml",
        "%00",
    ):
        assert _status(address + path)[0] == 404
    assert _status(address, Host="evil.example:80")[0] == 403
    told = json.loads(_status(address + "state")[1])
    assert told["words"].startswith("Follows the run: ")
    assert "connect-src 'self'" in _status(address)[1].decode()


def test_a_port_that_is_taken_is_one_line(tmp_path):
    (tmp_path / "hwnas.yaml").write_text(SETTINGS)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "hwnas", "report", "--serve", "--port", port]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert f"port {port} cannot be had (address already in use); give another one" in line
