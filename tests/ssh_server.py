"""A real OpenSSH server on a port and keys of its own, run by whoever runs the tests."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
PidFile {folder}/pid
AuthorizedKeysFile {folder}/user.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
UsePAM no
StrictModes no
MaxStartups 100:30:200
Subsystem sftp internal-sftp
"""
CLIENT = """
Host {names}
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  StrictHostKeyChecking yes
"""
BOARDS = "board-*"


def need_sshd():
    """Skip where no OpenSSH server is installed; fail in CI, which installs it."""
    if os.access(SSHD, os.X_OK) and shutil.which("ssh"):
        return
    reason = "no OpenSSH server: apt-get install openssh-server"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def server(folder, port=None, home=None):
    """A running server; the path of an ssh configuration that reaches it as any `board-…`.

    Args:
        folder: for keys and configuration; keys that are there stay.
        port: to listen on; a free one if None.
        home: the user's home folder there; the real one if None.
    """
    folder, port = Path(folder), port or free_port()
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd demands it of root
    for name in ("host", "user"):
        if not (folder / name).exists():
            key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(key, check=True)
    kind, key, *_ = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {kind} {key}\n")
    facts = {"folder": folder, "port": port, "user": getpass.getuser(), "names": BOARDS}
    moved = f'ForceCommand cd {home} && HOME={home} exec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    (folder / "sshd_config").write_text(SERVER.format(**facts) + (moved if home else ""))
    (folder / "ssh_config").write_text(CLIENT.format(**facts))
    command = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
    with open(folder / "log", "ab") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            _wait_for(port, process, folder / "log")
            yield folder / "ssh_config"
        finally:
            process.terminate()


def _wait_for(port, process, log):
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    pytest.fail(f"sshd did not start: {log.read_text()[-500:]}")
