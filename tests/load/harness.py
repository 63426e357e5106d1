"""What the load scripts share: Weir in a folder of its own, a server behind it, and clients that ask at a steady rate.

Standard library only. Everything is on loopback, on ports that the system chooses, and ends with the script.
"""

import argparse
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Machines that are busy with something else are slow.
PATIENCE = 60
GUEST_TARGET = "wasm32-wasip2"
TEXT = b"the answer of the server"


def arguments(description, **numbers):
    """The options of a script: the binary, and numbers with their defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--binary", default=str(ROOT / "target/release/weir"))
    parser.add_argument("--keep", action="store_true", help="keep the folder, with Weir's log")
    for name, default in numbers.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"default {default}")
    return parser.parse_args()


def components(*guests):
    """Plugins of `tests/guests`, as they are now."""
    target = ROOT / "target/guests"
    command = ["cargo", "build", "--quiet", "--profile", "guest", "--target", GUEST_TARGET, "--target-dir", str(target)]
    subprocess.run([*command, *(f"--package=guest-{guest}" for guest in guests)], cwd=ROOT, check=True)
    built = target / GUEST_TARGET / "guest"
    return [(built / f"guest_{guest.replace('-', '_')}.wasm").read_bytes() for guest in guests]


def finish(figures, limits):
    """Prints the figures as JSON, the last line, and ends; `limits` maps a figure to the most it may be."""
    passed = [f"{name} is {figures[name]}, at most {most} may be" for name, most in limits.items() if figures[name] > most]
    for text in passed:
        print(f"failed: {text}", file=sys.stderr)
    print(json.dumps(figures | {"ok": not passed}))
    sys.exit(1 if passed else 0)


class Server:
    """Answers everything with the same text, on connections that stay."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(TEXT)))
            self.end_headers()
            self.wfile.write(TEXT)

        def log_message(self, *_):
            pass

    def __enter__(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *_):
        self.server.shutdown()


class Weir:
    """The binary with an install file, an entry point `web`, and the folders `routing` and `plugins`."""

    INSTALL = """
providers:
  providersThrottleDuration: 0s
  file: {directory: routing}
entryPoints:
  web: {address: "127.0.0.1:0"}
"""

    def __init__(self, binary, files, keep=False, install=INSTALL, under=()):
        """`under` is a command that runs the binary, such as `prlimit`."""
        self.files, self.keep = {"install.yaml": install, **files}, keep
        self.command = [*under, os.path.abspath(binary), "--configFile=install.yaml"]

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-load-"))
        for name, content in self.files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.log = self.folder / "weir.log"
        environment = {"HOME": str(self.folder), "XDG_CACHE_HOME": str(self.folder / "cache"), "PATH": os.environ["PATH"]}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        self.address = self.address_of("web")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.keep:
            print(f"kept: {self.folder}", file=sys.stderr)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def address_of(self, entry_point):
        def find():
            log = re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace"))
            if self.process.poll() is not None:
                sys.exit(f"Weir has ended:\n{log}")
            return re.search(rf"entry_point={entry_point} address=127\.0\.0\.1:(\d+)", log)

        return ("127.0.0.1", int(wait_for("the address in Weir's log", find).group(1)))

    def rss(self):
        """Resident memory in KiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))

    def replace(self, name, content):
        """Puts a file in its place at once, by renaming."""
        temporary = self.folder / "next"
        temporary.write_bytes(content)
        os.replace(temporary, self.folder / name)


def wait_for(what, ask, pause=0.005):
    deadline = time.monotonic() + PATIENCE
    while not (answer := ask()):
        if time.monotonic() > deadline:
            sys.exit(f"this never came: {what}")
        time.sleep(pause)
    return answer


class Connection:
    """A kept-alive connection."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def get(self, host, path="/", close=False):
        """Status, fields in lower case, body. An `OSError` if the connection ends before all of it is there."""
        connection = "Connection: close\r\n" if close else ""
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{connection}\r\n".encode())
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        status, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines)}
        length = int(fields.get("content-length", 0))
        while len(self.rest) < length:
            self._more()
        body, self.rest = self.rest[:length], self.rest[length:]
        return int(status.split()[1]), fields, body

    def close(self):
        self.socket.close()

    def _more(self):
        more = self.socket.recv(65536)
        if not more:
            raise ConnectionError("the connection was closed")
        self.rest += more


class Load:
    """Requests at a steady rate on new connections, and at the same rate on kept-alive ones, until the block ends."""

    def __init__(self, address, rate, ask, is_right, connections=8):
        """`ask(number)` says host and path; `is_right(status, fields, body)` judges each answer."""
        self.address, self.rate, self.ask, self.is_right = address, rate, ask, is_right
        self.connections = connections
        self.requests = self.closed = 0
        self.failures = []
        self.lock = threading.Lock()
        self.ended = threading.Event()

    def __enter__(self):
        self.threads = [threading.Thread(target=run, daemon=True) for run in (self._new, self._kept)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join(PATIENCE)

    def figures(self):
        return {"requests": self.requests, "failed": len(self.failures), "closed": self.closed, "first": self.failures[:3]}

    def _new(self):
        for number in self._paced():
            try:
                connection = Connection(self.address)
                self._judge("new", connection.get(*self.ask(number), close=True))
                connection.close()
            except OSError as error:
                self._failed(f"new: {error!r}")

    def _kept(self):
        kept = [Connection(self.address) for _ in range(self.connections)]
        for number in self._paced():
            at = number % len(kept)
            try:
                self._judge("kept-alive", kept[at].get(*self.ask(number)))
            except OSError as error:
                self._failed(f"kept-alive: {error!r}")
                with self.lock:
                    self.closed += 1
                kept[at] = Connection(self.address)
        for connection in kept:
            connection.close()

    def _paced(self):
        begun, number = time.monotonic(), 0
        while not self.ended.is_set():
            yield number
            number += 1
            pause = begun + number / self.rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)

    def _judge(self, kind, answer):
        with self.lock:
            self.requests += 1
        if not self.is_right(*answer):
            self._failed(f"{kind}: {answer}")

    def _failed(self, text):
        with self.lock:
            self.failures.append(text)


def spread(seconds):
    """Median and highest of some durations, in milliseconds."""
    milliseconds = [round(second * 1000) for second in seconds]
    return {"median_ms": round(statistics.median(milliseconds)), "highest_ms": max(milliseconds)}


def settled(weir, times=20):
    """The memory that is in use between two peaks."""
    samples = []
    for _ in range(times):
        samples.append(weir.rss())
        time.sleep(0.05)
    return round(statistics.median(samples))


def first_and_last_fifth(samples):
    """The middle of each. Peaks come and go: what stays shows in the middle of many."""
    fifth = max(1, len(samples) // 5)
    return [round(statistics.median(part)) for part in (samples[:fifth], samples[-fifth:])]


def reloads(weir, options, ask, is_right, reload):
    """Reloads under load, each with a number, after some to warm up: their figures."""
    with Load(weir.address, options.rate, ask, is_right) as load:
        for number in range(1, options.warm_up + 1):
            reload(number)
        applied, memory = [], []
        for number in range(1, options.reloads + 1):
            applied.append(reload(options.warm_up + number))
            memory.append(weir.rss())
    before, after = first_and_last_fifth(memory)
    rss = {"rss_kib": [before, after], "rss_growth_kib": after - before}
    return {"reloads": options.reloads, **load.figures(), **rss, **spread(applied)}
