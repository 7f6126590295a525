"""Chromium, driven over a pipe by the DevTools protocol: pages, sizes, media; for tests."""

import json
import os
import shutil
import subprocess
import time

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--remote-debugging-pipe about:blank"
)


class Browser:
    """One page of a headless Chromium; what it said and asked for since it was opened."""

    def __init__(self, profile):
        chromium = shutil.which("chromium")
        if chromium is None and os.environ.get("CI") != "true":
            pytest.skip("chromium is not installed: apt-get install chromium")
        assert chromium, "CI installs chromium; this test may not be skipped there"
        theirs, self._to = os.pipe()
        self._from, ours = os.pipe()
        command = [chromium, f"--user-data-dir={profile}", *FLAGS.split()]
        # Chromium reads descriptor 3 and writes to descriptor 4.
        shell = f'exec 3<&{theirs} 4>&{ours}; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", *command],
            pass_fds=(theirs, ours),
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        self._unread, self._count, self._session, self.events = b"", 0, None, []
        pages = self.call("Target.getTargets")["targetInfos"]
        page = next(each["targetId"] for each in pages if each["type"] == "page")
        found = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = found["sessionId"]
        for part in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{part}.enable")

    def close(self):
        """End the process."""
        self._session = None
        self.call("Browser.close")
        self._process.wait(20)
        os.close(self._to)
        os.close(self._from)

    def call(self, method, **params):
        """The result of a method of the protocol."""
        told = self._tell(method, **params)
        assert "error" not in told, (method, told)
        return told["result"]

    def _tell(self, method, **params):
        """What the browser answers to a method."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            told = self._read()
            if told.get("id") == self._count:
                return told
            self.events.append(told)

    def _read(self):
        while b"\0" not in self._unread:
            part = os.read(self._from, 1 << 20)
            assert part, "chromium ended"
            self._unread += part
        text, _, self._unread = self._unread.partition(b"\0")
        return json.loads(text)

    def open(self, url, width=1280, height=800, scheme="light", media="screen"):
        """Load a page in a window of a size, and wait until it is there."""
        self.size(width, height)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Page.navigate", url="about:blank")
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait("document.readyState == 'complete'")

    def size(self, width, height):
        """Give the window a size; a narrow one is a phone's."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def run(self, script):
        """The value of an expression in the page."""
        told = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, condition):
        """Wait until an expression holds in the page, whichever page that is by then."""
        for _ in range(2000):
            told = self._tell("Runtime.evaluate", expression=condition, returnByValue=True)
            if told.get("result", {}).get("result", {}).get("value"):
                return
            time.sleep(0.01)
        raise AssertionError(f"never: {condition}")

    def problems(self):
        """Errors, warnings and refusals of the page, as texts."""
        self.run("1")  # what was said before has arrived then
        told = []
        for event in self.events:
            params = event.get("params", {})
            match event.get("method"):
                case "Runtime.exceptionThrown":
                    told.append(json.dumps(params["exceptionDetails"])[:300])
                case "Runtime.consoleAPICalled":
                    told.append(json.dumps(params["args"])[:300])
                case "Log.entryAdded":
                    told.append(params["entry"]["text"])
        return told

    def requests(self):
        """Addresses that were asked for since the page was opened, the page's own included."""
        self.run("1")
        sent = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [each["params"]["request"]["url"] for each in sent]
