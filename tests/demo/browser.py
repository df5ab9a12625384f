"""A headless browser that a test drives: clicks, strokes, what is on the page, what it fetched."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 120  # seconds, on a busy machine


class Browser:
    """Chromium by the DevTools protocol, over its pipe: messages of JSON that end in a zero."""

    def __init__(self, home, width=1280, height=1000):
        to_browser, ours = os.pipe()
        theirs, from_browser = os.pipe()

        def place():
            spare = [os.dup2(fd, fd + 100) for fd in (to_browser, from_browser)]
            os.dup2(spare[0], 3)
            os.dup2(spare[1], 4)

        self.process = subprocess.Popen(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--remote-debugging-pipe", f"--user-data-dir={home}",
             f"--window-size={width},{height}", "about:blank"],
            close_fds=False, preexec_fn=place,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self.write, self.read = ours, theirs
        self.numbers, self.rest, self.session = itertools.count(1), b"", None
        self.fetched, self.complaints = [], []
        (target,) = [
            each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page"
        ]
        attach = {"targetId": target["targetId"], "flatten": True}
        self.session = self.call("Target.attachToTarget", **attach)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "DOM", "Log"):
            self.call(f"{domain}.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def call(self, method, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while (answer := self.next()).get("id") != number:
            self.note(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def next(self):
        until = time.monotonic() + PATIENCE
        while b"\0" not in self.rest:
            assert select.select([self.read], [], [], max(0, until - time.monotonic()))[0], "silent"
            self.rest += os.read(self.read, 2**16)
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def note(self, event):
        params = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.fetched.append(params["request"]["url"])
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"]["exception"].get("description", ""))
        if event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")

    def open(self, address):
        self.call("Page.navigate", url=address)

    def js(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression, seconds=PATIENCE):
        """The value of an expression once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.js(expression)):
            assert time.monotonic() < end, (
                f"not yet: {expression}\n{self.js('document.body.innerText')}"
            )
            time.sleep(0.2)
        return value

    def place(self, selector):
        """Left, top, width and height of an element, scrolled into view."""
        return self.js(f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
          e.scrollIntoView({{block: "center"}}); const r = e.getBoundingClientRect();
          return [r.left, r.top, r.width, r.height]; }})()""")

    def mouse(self, kind, x, y, buttons=1):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=buttons,
                  clickCount=1, pointerType="mouse")  # fmt: skip

    def click(self, selector):
        left, top, width, height = self.place(selector)
        self.stroke([(left + width / 2, top + height / 2)])

    def stroke(self, points):
        """Press at the first point, go through the others, let go."""
        self.mouse("mouseMoved", *points[0], buttons=0)
        self.mouse("mousePressed", *points[0])
        for point in points[1:]:
            self.mouse("mouseMoved", *point)
            time.sleep(0.03)
        self.mouse("mouseReleased", *points[-1], buttons=0)

    def type(self, selector, text):
        """In place of what stands in a field."""
        self.click(selector)
        self.js(f"document.querySelector({json.dumps(selector)}).select()")
        self.call("Input.insertText", text=text)
        self.js(f"document.querySelector({json.dumps(selector)}).blur()")

    def upload(self, selector, file):
        node = self.call("DOM.getDocument")["root"]["nodeId"]
        found = self.call("DOM.querySelector", nodeId=node, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=found, files=[str(file)])

    def screenshot(self, file):
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.write)
        os.close(self.read)
