"""A headless Chromium for the tests, driven over its debugging pipe: JSON with a NUL after each message."""

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT = 30


def find_browser() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page of one browser; ``problems`` are its errors, its refused scripts and its failed requests."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        pipes = [*os.pipe(), *os.pipe()]
        # Out of the way of 3 and 4, which the browser reads and writes.
        to_read, self.to_browser, self.from_browser, to_write = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in pipes)
        for end in pipes:
            os.close(end)
        self.process = subprocess.Popen(
            [
                find_browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--disable-background-networking", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe",
                f"--user-data-dir={self.profile.name}", "about:blank",
            ],
            preexec_fn=lambda: (os.dup2(to_read, 3), os.dup2(to_write, 4)),
            pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        os.set_blocking(self.from_browser, False)
        self.number, self.buffer, self.session = 0, b"", None
        self.problems: list[str] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=TIMEOUT)
        os.close(self.to_browser)
        os.close(self.from_browser)
        self.profile.cleanup()

    def send(self, method: str, **parameters) -> dict:
        """The result of one command; events that come before it are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        number = self.number
        answer = self.wait(lambda message: message.get("id") == number, method)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def wait(self, wanted, what: str) -> dict:
        """The first message that is wanted; ``TimeoutError`` where none comes."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            while b"\0" in self.buffer:
                text, self.buffer = self.buffer.split(b"\0", 1)
                message = json.loads(text)
                self.note(message)
                if wanted(message):
                    return message
            try:
                received = os.read(self.from_browser, 1 << 20)
                if not received:
                    raise ConnectionError("the browser has ended")
                self.buffer += received
            except BlockingIOError:
                time.sleep(0.005)
        raise TimeoutError(what)

    def note(self, message: dict) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                self.problems.append(details.get("exception", {}).get("description", details["text"]))
            case "Runtime.consoleAPICalled":
                self.problems.append(f"console: {parameters['args']}")
            case "Log.entryAdded":
                self.problems.append(f"log: {parameters['entry']['text']}")
            case "Network.loadingFailed":
                self.problems.append(f"failed request: {parameters['errorText']}")
            case "Network.requestWillBeSent":
                url = parameters["request"]["url"]
                if not url.startswith(("file:", "data:")):
                    self.problems.append(f"request to {url}")
            case "Page.javascriptDialogOpening":
                self.problems.append(f"dialog: {parameters['message']}")

    def open(self, page: Path, width: int = 1280, height: int = 900) -> None:
        self.problems.clear()
        self.resize(width, height)
        self.send("Page.navigate", url=page.resolve().as_uri())
        self.wait(lambda message: message.get("method") == "Page.loadEventFired", "load")

    def resize(self, width: int, height: int) -> None:
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def run(self, script: str):
        """The value of a JavaScript expression."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, script: str) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + TIMEOUT
        while not self.run(script):
            if time.monotonic() > end:
                raise TimeoutError(f"{script}; problems: {self.problems}")
            time.sleep(0.01)

    def set(self, name: str, value) -> None:
        """Give a control another value, as its user does."""
        control = f"document.getElementById({json.dumps(name)})"
        self.run(f"{control}.value = {json.dumps(value)}")
        for event in ("input", "change"):
            self.run(f"{control}.dispatchEvent(new Event('{event}'))")

    def press(self, key: str) -> None:
        """A key on what has the focus."""
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Tab": 9}
        code = codes.get(key, ord(key[0].upper()))
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        common = {"key": key, "windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def click(self, script: str) -> None:
        """A mouse click on the middle of an element, scrolled into view."""
        x, y = self.run(
            f"(() => {{ const e = {script}; e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
