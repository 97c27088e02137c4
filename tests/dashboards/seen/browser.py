"""Chromium, headless, driven over a pipe by its DevTools protocol: a page, pictures, what the page says.

No port is opened and nothing is fetched: the page comes from a loopback server that serves one folder.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import functools
import http.server
import json
import os
import select
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--mute-audio",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
    "--disable-dev-shm-usage",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--remote-debugging-pipe",
]


def found() -> str | None:
    """Where Chromium is; None when it is not here."""
    return next((path for name in ("chromium", "chromium-browser") if (path := shutil.which(name))), None)


class BrowserError(Exception):
    """The browser did not start, did not answer, or the page threw; the message is its own."""


class Browser:
    """One page in one browser with a profile of its own, gone when it is closed."""

    def __init__(self, folder: Path, path: str) -> None:
        """Open `path` of `folder`; BrowserError."""
        executable = found()
        if executable is None:
            raise BrowserError("Chromium is not here")
        self._server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder))
        )
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self._profile = tempfile.TemporaryDirectory(prefix="tgw-seen-")
        self._number, self._session, self._left = 0, "", b""
        self.complaints: list[str] = []
        command_in, self._command = os.pipe()
        self._reply, reply_out = os.pipe()
        # The browser reads 3 and writes 4; ours must lie above, or they would be overwritten on the way.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 20) for fd in (command_in, reply_out)]
        os.close(command_in)
        os.close(reply_out)
        self._log = open(Path(self._profile.name) / "log", "w+")  # noqa: SIM115
        own = [*FLAGS, f"--user-data-dir={self._profile.name}/profile", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{high[0]} 4>&{high[1]}', "chromium", executable, *own],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=high,
            start_new_session=True,
        )
        for fd in high:
            os.close(fd)
        try:
            self._attach()
            self._call("Page.navigate", url=f"http://127.0.0.1:{self._server.server_port}/{path}")
            self._until("document.readyState === 'complete' && window.seen !== undefined")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The browser's process, which leads a group of its own."""
        return self._process.pid

    def evaluate(self, expression: str, timeout_s: float = 60.0) -> Any:
        """What a JavaScript expression gives, promises awaited; BrowserError when it throws."""
        answer = self._call("Runtime.evaluate", timeout_s, expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def apply(self, function: str, *arguments: Any, timeout_s: float = 60.0) -> Any:
        """What a function of the page gives for JSON arguments."""
        return self.evaluate(f"{function}({','.join(json.dumps(a) for a in arguments)})", timeout_s)

    def size(self, width: int, height: int) -> None:
        """Make the window so many pixels wide and high."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def vision(self, deficiency: str) -> None:
        """See as somebody does with `none`, `deuteranopia`, `protanopia`, `tritanopia` or `achromatopsia`."""
        self._call("Emulation.setEmulatedVisionDeficiency", type=deficiency)

    def picture(self, path: Path) -> None:
        """Write what the window shows as PNG."""
        data = self._call("Page.captureScreenshot", format="png")["data"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        """End the browser and the server; the profile goes too."""
        if self._session and self._process.poll() is None:
            with contextlib.suppress(BrowserError, OSError):
                self._call("Browser.close", 5.0, browser=True)
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        os.close(self._command)
        os.close(self._reply)
        self._log.close()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)
        self._profile.cleanup()

    def _attach(self) -> None:
        targets = self._call("Target.getTargets", browser=True)["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self._call("Target.attachToTarget", browser=True, targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime"):
            self._call(f"{domain}.enable")

    def _until(self, expression: str, timeout_s: float = 60.0) -> None:
        end = time.monotonic() + timeout_s
        while not self.evaluate(expression):
            if time.monotonic() > end:
                raise BrowserError(f"the page is not ready after {timeout_s:.0f} s: {self.complaints[-3:]}")
            time.sleep(0.05)

    def _call(self, method: str, timeout_s: float = 60.0, browser: bool = False, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if not browser:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        try:
            while data:
                data = data[os.write(self._command, data) :]
        except BrokenPipeError:
            raise self._ended(method) from None
        end = time.monotonic() + timeout_s
        while True:
            answer = self._read(end, method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error'].get('message')}")
                result: dict[str, Any] = answer["result"]
                return result
            self._hear(answer)

    def _read(self, end: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._reply], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise BrowserError(f"{method}: no answer in time")
            data = os.read(self._reply, 1 << 20)
            if not data:
                raise self._ended(method)
            self._left += data
        line, self._left = self._left.split(b"\0", 1)
        out: dict[str, Any] = json.loads(line)
        return out

    def _ended(self, method: str) -> BrowserError:
        self._log.seek(0)
        return BrowserError(f"{method}: the browser ended: {self._log.read()[-1000:]}")

    def _hear(self, event: dict[str, Any]) -> None:
        """Keep what the page complains of."""
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            words = [str(a.get("value", a.get("description", ""))) for a in parameters["args"]]
            self.complaints.append(" ".join(words))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass
