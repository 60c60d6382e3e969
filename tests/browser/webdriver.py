# SPDX-License-Identifier: Apache-2.0
"""Chromium through its driver, with the standard library alone.

The WebDriver protocol is JSON over HTTP on loopback; what goes beyond it (the size of a
phone, light or dark) is a DevTools command that the driver passes on.
"""
import base64
import http.client
import json
import os
import re
import shutil
import subprocess
import tempfile
import time

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
# Only what the page does may happen: no look at other hosts, nothing kept.
ARGUMENTS = [
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-features=Translate,OptimizationHints,MediaRouter",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def found():
    """Are browser and driver installed?"""
    return shutil.which("chromium") and shutil.which("chromedriver")


class Failed(Exception):
    """The driver's answer, or a wait that was too long."""


class Browser:
    def __init__(self, width=1280, height=800):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.port = None
        for line in self.driver.stdout:
            if match := re.search(r"successfully on port (\d+)", line):
                self.port = int(match[1])
                break
        if self.port is None:
            raise Failed("chromedriver does not start")
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        options = {"args": [*ARGUMENTS, *root, f"--user-data-dir={self.profile.name}", f"--window-size={width},{height}"]}
        self.session = None
        try:
            self.begin(options)
        except BaseException:
            self.end()
            raise

    def begin(self, options):
        answer = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}})
        self.session = answer["sessionId"]
        self.open("about:blank")  # the browser's own first page is of no interest
        self.console()
        self.requests()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.ask("DELETE", "")
        finally:
            self.end()

    def end(self):
        self.driver.terminate()
        self.driver.wait(10)
        self.profile.cleanup()

    def ask(self, method, path, body=None):
        at = path if self.session is None else f"/session/{self.session}{path}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        text = None if method in ("GET", "DELETE") else json.dumps(body or {})
        connection.request(method, at, text, {"Content-Type": "application/json"})
        value = json.loads(connection.getresponse().read())["value"]
        connection.close()
        if isinstance(value, dict) and "error" in value:
            raise Failed(f"{value['error']}: {value['message'].splitlines()[0]}")
        return value

    def devtools(self, command, **parameters):
        return self.ask("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    # ---- what a person does ----

    def open(self, address):
        self.ask("POST", "/url", {"url": address})

    def reload(self):
        self.ask("POST", "/refresh")

    def _element(self, selector):
        return self.ask("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.ask("POST", f"/element/{self._element(selector)}/click")

    def type(self, selector, text):
        """Enter is \\ue007, Shift \\ue008, Tab \\ue004, arrow right \\ue014."""
        self.ask("POST", f"/element/{self._element(selector)}/value", {"text": text})

    def choose(self, selector, value):
        self.click(f"{selector} option[value='{value}']")

    # ---- what a person sees ----

    def run(self, script, *args):
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(args)})

    def text(self, selector):
        return self.run("return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)", selector)

    def count(self, selector):
        return self.run("return document.querySelectorAll(arguments[0]).length", selector)

    def shown(self, selector):
        return self.run("const e = document.querySelector(arguments[0]); return !!e && e.checkVisibility()", selector)

    def wait(self, what, condition, seconds=60):
        """CONDITION is JavaScript, or a function; what it returns once it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = self.run(condition) if isinstance(condition, str) else condition()
            if value:
                return value
            time.sleep(0.05)
        raise Failed(f"waited {seconds} s for {what}")

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.ask("GET", "/screenshot")))

    def size(self, width, height, phone=False):
        self.devtools("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def scheme(self, name):
        self.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    # ---- what happened behind it ----

    def console(self):
        """What the browser's console has got since the last call."""
        return [f"{e['level']}: {e['message']}" for e in self.ask("POST", "/se/log", {"type": "browser"})]

    def requests(self):
        """Addresses that were asked for since the last call."""
        events = [json.loads(e["message"])["message"] for e in self.ask("POST", "/se/log", {"type": "performance"})]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
