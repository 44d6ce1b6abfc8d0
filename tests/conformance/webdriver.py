"""As much of the WebDriver protocol (W3C) as two pages in one headless Chromium need."""

import contextlib
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.client import HTTPConnection
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PATIENCE = 60
"""Seconds for one command, the start of the browser among them."""

BROWSER_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--allow-loopback-in-peer-connection",
]


class WebDriverError(Exception):
    """The browser refused a command, or a script in it failed."""


class Browser:
    """A WebDriver session."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._path = ""

    def open(self, binary: Path, profile: Path) -> None:
        """Start the browser with a profile of its own."""
        arguments = [*BROWSER_ARGUMENTS, f"--user-data-dir={profile}"]
        options = {"binary": str(binary), "args": arguments}
        capabilities = {
            "goog:chromeOptions": options,
            "timeouts": {"script": PATIENCE * 1000, "pageLoad": PATIENCE * 1000},
        }
        value = self._command("POST", "/session", capabilities={"alwaysMatch": capabilities})
        self._path = f"/session/{value['sessionId']}"

    def close(self) -> None:
        """End the browser."""
        if self._path:
            self._command("DELETE", "")

    def page(self, url: str) -> "Page":
        """Open an address in a window of its own."""
        handle = self._command("POST", "/window/new", type="tab")["handle"]
        page = Page(self, handle)
        page.command("/url", url=url)
        return page

    def _command(self, method: str, path: str, **body: Any) -> Any:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            payload = json.dumps(body) if method == "POST" else None
            connection.request(method, self._path + path, payload)
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        value = answer["value"]
        if isinstance(value, dict) and "error" in value:
            raise WebDriverError(f"{value['error']}: {value.get('message', '')}")
        return value


class Page:
    """A window of the browser."""

    def __init__(self, browser: Browser, handle: str) -> None:
        self._browser, self._handle = browser, handle

    def command(self, path: str, **body: Any) -> Any:
        """Carry out a command in this window."""
        self._browser._command("POST", "/window", handle=self._handle)
        return self._browser._command("POST", path, **body)

    def call(self, function: str, *arguments: Any) -> Any:
        """Call a function of the page, wait for its promise, and return what it gives."""
        script = (
            "const done = arguments[arguments.length - 1];"
            f"{function}(...Array.from(arguments).slice(0, -1))"
            ".then(result => done({result}), error => done({failure: String(error)}));"
        )
        answer = self.command("/execute/async", script=script, args=list(arguments))
        if "failure" in answer:
            raise WebDriverError(f"{function}: {answer['failure']}")
        return answer.get("result")


@contextlib.contextmanager
def browser(driver: Path, binary: Path, folder: Path) -> Iterator[Browser]:
    """Run chromedriver and a browser for the length of the block; files go to ``folder``."""
    log, profile = folder / "chromedriver.log", folder / "profile"
    command = [str(driver), "--port=0", f"--log-path={log}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        running = None
        try:
            running = Browser(_port(process))
            running.open(binary, profile)
            yield running
        finally:
            try:
                if running is not None:
                    running.close()
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE)


def _port(process: "subprocess.Popen[str]") -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if "started successfully on port" in line:
            return int(line.rstrip().rstrip(".").rpartition(" ")[2])
    raise WebDriverError("chromedriver did not start")


class _Quiet(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # no connection stays open behind a page

    def log_message(self, *arguments: Any) -> None:
        """Keep requests to oneself."""


@contextlib.contextmanager
def site(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback for the length of the block; give the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    server.daemon_threads = False  # they are joined when the server closes
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
