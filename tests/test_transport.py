"""The host's end of a worker: packing it, starting it, and whatever may be at the other end."""

import json
import subprocess
import sys
import zipfile

import pytest
from worker_kits import fake_target

from hwnas.measuring import client, transport
from hwnas.measuring.connections import local
from profilers.errors import ConfigError, DeviceError, LostDeviceError
from profilers.schema import Target


def test_a_plugin_that_is_not_there_is_named(tmp_path):
    target = Target("host", "spy:RUNTIME", plugins=(str(tmp_path / "missing.py"),))
    with pytest.raises(ConfigError, match=r"plug-in .*missing\.py cannot be read"):
        local.local_command(target, tmp_path)


def test_two_plugins_of_one_name_are_refused(tmp_path):
    files = [tmp_path / lab / "spy.py" for lab in "ab"]
    for path in files:
        path.parent.mkdir()
        path.write_text("")
    plugins = tuple(map(str, (*files[:1], *files)))
    with pytest.raises(ConfigError, match=r"a/spy\.py and .*b/spy\.py have one name; rename"):
        local.local_command(Target("host", "spy:RUNTIME", plugins=plugins), tmp_path)
    transport.pack_worker(tmp_path / "worker.pyz", plugins[:2])  # one file, named twice


def test_the_worker_is_one_file_with_the_same_bytes_every_time(tmp_path):
    one = transport.pack_worker(tmp_path / "one.pyz").read_bytes()
    assert one == transport.pack_worker(tmp_path / "two.pyz").read_bytes()
    found = subprocess.run(
        [sys.executable, "-I", str(tmp_path / "one.pyz"), "probe"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(found.stdout)["device"] == "host"


def test_the_worker_that_boards_get_holds_no_fake(tmp_path):
    with zipfile.ZipFile(transport.pack_worker(tmp_path / "worker.pyz")) as archive:
        names = archive.namelist()
        texts = [archive.read(name).decode() for name in names]
    assert not [name for name in names if "fake" in name or "replay" in name]
    assert not [text for text in texts if "import hwnas" in text or "from hwnas" in text]


BEATING = """
import time
while True:
    print('{"type": "heartbeat", "seq": 1}', flush=True)
    time.sleep(0.1)
"""


def greet(source, silence_s=1.0):
    connection = transport.Connection([sys.executable, "-c", source], silence_s)
    with client.greet(connection, fake_target(), ""):
        pass


def test_a_worker_that_only_beats_is_given_up(monkeypatch):
    monkeypatch.setattr("hwnas.measuring.client.ANSWER_S", 0.5)
    with pytest.raises(DeviceError, match="alive but has not gone on"):
        greet(BEATING, silence_s=5)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("print('Welcome to Linux', flush=True); input()", "protocol: .*b'Welcome to Linux"),
        ("import sys; sys.exit('no numpy here')", "exit status 1; its last line: no numpy here"),
        ("import os; os.kill(os.getpid(), 11)", r"signal 11 \(SIGSEGV\)"),
        ("import os; os.kill(os.getpid(), 40)", "worker ended by signal 40$"),
        ("import time; time.sleep(60)", "silent for 1 s"),
        ("print('[1]'); input()", "outside the protocol"),
        ("print('{\"type\": [1]}'); input()", "outside the protocol"),
        ('print(\'{"type": "record"}\'); input()', "outside the protocol"),
        ('print(\'{"type": "done", "seq": 1, "re": 9}\'); input()', "not an answer to hello"),
        ("print('x' * (1 << 21), flush=True); input()", "line longer than"),
        (
            "import json; error = {'type': 'error', 'seq': 1, 're': 1, 'code': 'HwnasErr'}; "
            "print(json.dumps({**error, 'text': 'a\\x1b[2J\\nb'})); input()",
            r"^a\?\[2J b$",
        ),
    ],
)
def test_whatever_is_at_the_other_end_the_host_says_what_happened(source, reason):
    with pytest.raises(DeviceError, match=reason):
        greet(source)


LOUD = """
import sys
import zipfile
for _ in range(320):
    sys.stderr.write("x" * 99_999 + "\\n")
sys.exit("no room for the model")
"""


def test_a_worker_that_never_stops_complaining_is_heard_to_its_end(tmp_path, monkeypatch):
    """32 MB on its error output: neither end waits for the other, and only the last of it stays."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    connection = transport.Connection([sys.executable, "-c", LOUD], 60)
    with pytest.raises(LostDeviceError, match=r"status 1; its last line: no room for the model$"):
        connection.receive()
    assert len(connection._words) == transport.WORDS_BYTES
    connection.close()


def test_a_command_that_is_not_there_is_named():
    with pytest.raises(DeviceError, match="/no/such/python"):
        transport.Connection(["/no/such/python"])


def flood(connection):
    for _ in range(100):
        connection.send(b"x" * 100_000)


def test_a_worker_that_reads_nothing_does_not_block_the_host():
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    connection = transport.Connection(sleeper, silence_s=0.3)
    with pytest.raises(DeviceError, match="read nothing"):
        flood(connection)
    connection.kill()
