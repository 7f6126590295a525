"""The report of a run folder, served to browsers on this machine while the run goes on.

It only reads, and takes no lock: every page is made of what the folder holds at that moment, in
memory. It asks nothing of the run and nothing of the network but its own port.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from hwnas.report.collect import collect
from hwnas.report.render import render
from hwnas.run.folder import STAMPS
from hwnas.settings.config import Config
from profilers.errors import ConfigError, HwnasError
from profilers.schema import canonical_json, sha256_text

HOST, PORT = "127.0.0.1", 8765
_NAMES = ("127.0.0.1", "localhost")  # a page of another site that names us is refused
_SHOWN = (  # files that a report is made of
    "*.json", "*.jsonl", "*.npz", "*.safetensors", "tables/*", "fronts/*", "results/*",
    "packages/*/*/manifest.json",
)  # fmt: skip


@dataclass
class _Site:
    """What is served: the page of a folder, made again when a file that it shows changed."""

    folder: Path
    baselines: Path
    config: dict[str, Any]
    made: tuple[str, bytes] = ("", b"")
    lock: threading.Lock = field(default_factory=threading.Lock)

    def state(self) -> str:
        """Of the files that the report shows."""
        paths = [path for pattern in _SHOWN for path in sorted(self.folder.glob(pattern))]
        return sha256_text(canonical_json([_told(p) for p in (*paths, *self.baselines.glob("*"))]))

    def page(self) -> bytes:
        """The report as it is now.

        Raises:
            HwnasError: there is no run folder yet, or it cannot be read.
        """
        with self.lock:
            state = self.state()
            if self.made[0] != state:
                data = collect(
                    self.folder, self.folder / "report.html", self.baselines, self.config
                )
                self.made = (state, render(data, state).encode())
            return self.made[1]

    def words(self) -> str:
        """What happened last in the folder."""
        changed = []
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):  # a file that was replaced meanwhile
                if path.is_file() and path.name[0] != "." and path.parent.name != STAMPS:
                    changed.append((path.stat().st_mtime, path.relative_to(self.folder).as_posix()))
        if not changed:
            return "Waits for the run to begin."
        at, name = max(changed)
        return f"Follows the run: {name} changed at {datetime.fromtimestamp(at):%H:%M:%S}."

    def package_file(self, path: str) -> Path | None:
        """The file of a package that a link of the report names."""
        if "\0" in path:
            return None
        root, found = (self.folder / "packages").resolve(), (self.folder / path).resolve()
        return found if found.is_relative_to(root) and found.is_file() else None


def _told(path: Path) -> list[object]:
    try:
        about = path.stat()
    except FileNotFoundError:  # it was there when the folder was listed
        return [str(path)]
    return [str(path), about.st_mtime_ns, about.st_size]


class _Handler(BaseHTTPRequestHandler):
    """Answers a request of a browser."""

    def __init__(self, site: _Site, *given: object) -> None:
        self.site = site
        super().__init__(*given)  # type: ignore[arg-type]

    def do_GET(self) -> None:  # the name that http.server asks for
        """The page, its state, or a file of a package; a browser may go away meanwhile."""
        with suppress(ConnectionError):
            self._answer()

    def _answer(self) -> None:
        if self.headers.get("Host", "").partition(":")[0] not in _NAMES:
            return self._send(403, b"asked for under another name", "text/plain")
        path = unquote(urlsplit(self.path).path).lstrip("/")
        try:
            if not path:
                return self._send(200, self.site.page(), "text/html; charset=utf-8")
            if path == "state":
                told = {"state": self.site.state(), "words": self.site.words()}
                return self._send(200, canonical_json(told).encode(), "application/json")
            if path == "favicon.ico":  # browsers ask for it by themselves
                return self._send(204, b"", "image/x-icon")
        except ConnectionError:
            raise
        except (HwnasError, OSError) as error:
            again = '<meta http-equiv="refresh" content="2">'
            page = f"<!DOCTYPE html>{again}<title>hwnas</title><p>{escape(str(error))}</p>"
            return self._send(503, page.encode(), "text/html; charset=utf-8")
        found = self.site.package_file(path)
        if found is None:
            return self._send(404, b"no such page", "text/plain")
        with found.open("rb") as file:
            self._head(200, found.stat().st_size, "application/octet-stream")
            shutil.copyfileobj(file, self.wfile)

    def _send(self, code: int, body: bytes, kind: str) -> None:
        self._head(code, len(body), kind)
        self.wfile.write(body)

    def _head(self, code: int, length: int, kind: str) -> None:
        self.send_response(code)
        for name, value in (
            ("Content-Type", kind), ("Content-Length", str(length)), ("Cache-Control", "no-store"),
        ):  # fmt: skip
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing: the terminal shows what the run says."""


def serve(config: Config, base: Path, port: int, say: Callable[[str], None]) -> None:
    """Serve the report of a run until Ctrl-C.

    Args:
        config: settings of the run, whose folder need not be there yet.
        base: where hwnas.yaml lies.
        port: on this machine; 0: a free one.
        say: gets the address.

    Raises:
        ConfigError: the port cannot be had.
    """
    site = _Site(base / config.run, base / "baselines", config.model_dump(mode="json"))
    try:
        server = ThreadingHTTPServer((HOST, port), partial(_Handler, site))
    except OSError as error:
        raise ConfigError(
            f"port {port} cannot be had ({(error.strerror or str(error)).lower()}); give another "
            "one with --port, or --port 0 for any that is free"
        ) from None
    server.daemon_threads = True
    with server:
        say(f"http://{HOST}:{server.server_port}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
