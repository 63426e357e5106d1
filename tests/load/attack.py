"""What the scripts share that attack: a proxy and what the system tells of it, a server behind it, and HTTP/2 by hand."""

import http.server
import json
import os
import pathlib
import socket
import sys
import threading

from harness import Weir


class Backend:
    """A server that says `hello`, after so many seconds as `?wait=` says; `/some` is 1000 bytes, `/large` 64 MiB."""

    def __init__(self):
        backend = self
        self.open = 0
        self.lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self):
                super().setup()
                with backend.lock:
                    backend.open += 1

            def finish(self):
                with backend.lock:
                    backend.open -= 1
                try:
                    super().finish()
                except OSError:
                    pass

            def do_GET(self):
                if "wait=" in self.path:
                    self.wait(float(self.path.split("wait=")[1]))
                size = {"/some": 1000, "/large": 64 << 20}.get(self.path, 5)
                try:
                    self.send_response(200)
                    self.send_header("Content-Length", str(size))
                    self.end_headers()
                    if size < 1 << 20:
                        self.wfile.write(b"hello" * (size // 5))
                    else:
                        for _ in range(64):
                            self.wfile.write(b"x" * (1 << 20))
                except OSError:
                    self.close_connection = True

            def wait(self, seconds):
                """Sleeps, but not longer than the other side is there."""
                self.connection.settimeout(seconds)
                try:
                    self.connection.recv(1, socket.MSG_PEEK)
                except (TimeoutError, OSError):
                    pass
                self.connection.settimeout(None)

            def do_POST(self):
                try:
                    left = int(self.headers.get("Content-Length", 0))
                    while left > 0:
                        piece = self.rfile.read(min(left, 65536))
                        if not piece:
                            self.close_connection = True
                            return
                        left -= len(piece)
                except OSError:
                    self.close_connection = True
                    return
                self.do_GET()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 1024

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Proxy(Weir):
    """Weir with two entry points before a server. `more` is added to the install file."""

    INSTALL = """
providers: {file: {directory: routing}}
entryPoints:
  web: {address: "127.0.0.1:0"}
  websecure: {address: "127.0.0.1:0"}
"""

    def __init__(self, options, server, more="", under=()):
        routes = f"""
http:
  routers:
    a: {{rule: "Host(`a.example`)", service: a}}
    b: {{rule: "Host(`a.example`)", service: a, tls: {{}}}}
  services:
    a: {{loadBalancer: {{servers: [{{url: "http://127.0.0.1:{server.port}"}}]}}}}
"""
        files = {"routing/routes.yaml": routes}
        super().__init__(options.binary, files, options.keep, self.INSTALL + more, under)

    def connect(self, entry_point="web", receive_buffer=None):
        stream = socket.socket()
        if receive_buffer:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        stream.settimeout(10)
        stream.connect(self.address if entry_point == "web" else self.address_of(entry_point))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream

    def printed(self):
        return self.log.read_text(errors="replace")

    def cpu(self):
        """Seconds, user and system."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def is_alive(self):
        return self.process.poll() is None


def ask(proxy, path="/", stream=None, host="a.example"):
    """The status of a GET over HTTP/1.1; `None` without an answer."""
    own = stream is None
    stream = stream or proxy.connect()
    stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.split(b"\r\n\r\n", 1)[1]:
        try:
            piece = stream.recv(65536)
        except OSError:
            break
        if not piece:
            break
        answer += piece
    if own:
        stream.close()
    return int(answer.split()[1]) if answer else None


def end(figures, failures):
    """Prints the figures as JSON, the last line, and ends."""
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    print(json.dumps(figures | {"ok": not failures}))
    sys.exit(1 if failures else 0)


# HTTP/2, frame by frame.

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
ACK = END_STREAM = 1
END_HEADERS = 4


def frame(kind, flags=0, stream=0, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(**values):
    numbers = {"table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5, "list": 6}
    return frame(
        SETTINGS, payload=b"".join(numbers[name].to_bytes(2, "big") + value.to_bytes(4, "big") for name, value in values.items())
    )


def field(name, value, first=0):
    """A literal; `first` is 0x40 for one that is indexed."""
    out = bytes([first])
    for text in (name, value):
        text = text if isinstance(text, bytes) else text.encode()
        if len(text) < 127:
            out += bytes([len(text)])
        else:
            rest = len(text) - 127
            out += b"\x7f"
            while rest >= 128:
                out += bytes([rest % 128 | 128])
                rest //= 128
            out += bytes([rest])
        out += text
    return out


def request(method="GET", path="/", host="a.example"):
    return field(":method", method) + field(":scheme", "http") + field(":authority", host) + field(":path", path)
