#!/usr/bin/env python3
"""Keeps 10,000 connections open after one request each, and measures what each costs; nginx for comparison, if it is there.

Fails if one costs more than 16 KiB, or is closed meanwhile.
"""

import pathlib
import re
import resource
import shutil
import socket
import subprocess
import tempfile
import time

from attack import Backend, Proxy, ask, end
from harness import arguments, settled, wait_for

KIB = 16


class Nginx:
    """nginx before the same server, with its defaults but for what so many connections need."""

    CONFIGURATION = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes 2;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_timeout 600s;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  upstream server {{ server 127.0.0.1:{server}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://server; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="weir-nginx-")
        folder = pathlib.Path(self.folder.name)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.address = free.getsockname()
        text = self.CONFIGURATION.format(folder=folder, server=self.server.port, port=self.address[1])
        (folder / "nginx.conf").write_text(text)
        command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for("nginx", self.is_there)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(15)
        self.folder.cleanup()

    def is_there(self):
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def connect(self):
        return socket.create_connection(self.address, 10)

    def rss(self):
        """Of all its processes, in KiB."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        texts = [pathlib.Path(f"/proc/{pid}/status").read_text() for pid in [str(self.process.pid), *children]]
        return sum(int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) for text in texts)


def measure(proxy, connections):
    """KiB for each connection, and how many of them were not there any more in the end."""
    for _ in range(200):
        ask(proxy)
    before = settled(proxy)
    streams = [proxy.connect() for _ in range(connections)]
    failed = sum(ask(proxy, stream=stream) != 200 for stream in streams)
    # What is kept for the next request of anybody is no cost of those that are idle.
    time.sleep(3)
    after = settled(proxy)
    for stream in streams[:: connections // 100]:
        failed += ask(proxy, stream=stream) != 200
    for stream in streams:
        stream.close()
    return round((after - before) / connections, 1), failed


def main():
    options = arguments(__doc__, connections=10_000)
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    server, results, failures = Backend(), {"connections": options.connections}, []
    with Proxy(options, server, f"limits: {{connections: {options.connections * 2}}}\n") as proxy:
        results["kib"], failed = measure(proxy, options.connections)
    if failed:
        failures.append(f"{failed} requests were not answered")
    if results["kib"] > KIB:
        failures.append(f"{results['kib']} KiB a connection")
    if shutil.which("nginx"):
        with Nginx(server) as nginx:
            results["nginx_kib"], _ = measure(nginx, options.connections)
    end(results, failures)


if __name__ == "__main__":
    main()
