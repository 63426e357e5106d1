#!/usr/bin/env python3
"""Weir proves names by dynamic updates (`rfc2136`) of a zone that a real BIND has, signed with each algorithm of TSIG that both know.

Needs `named` (Debian's package `bind9`), `pebble`, `openssl`, and the release binary of Weir. Nothing here needs root. The last
line is JSON; the status is not 0 if a certificate is missing, a record is left, or a wrong key is not refused in words."""

import argparse
import base64
import json
import os
import pathlib
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 60
ALGORITHMS = ["hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512"]
ZONE = "example.org"
RECORD = f"_acme-challenge.{ZONE}"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--weir", default=ROOT / "target/release/weir", help="Weir's binary")
    weir = arguments.parse_args().weir
    # Debian has it where only root looks.
    named = shutil.which("named", path=f"{os.environ['PATH']}:/usr/sbin")
    with tempfile.TemporaryDirectory(prefix="bind-") as folder:
        world = World(pathlib.Path(folder), weir, named)
        try:
            seconds = {algorithm: world.prove(algorithm) for algorithm in ALGORITHMS}
            refusal = world.refuse()
        finally:
            world.end()
        added, deleted = world.updates("adding an RR"), world.updates("deleting an RR")
    # A record for the domain, and one for its wildcard.
    check(added == deleted == 2 * len(ALGORITHMS), f"{added} records were added and {deleted} deleted")
    print(json.dumps({"seconds": seconds, "added": added, "deleted": deleted, "refusal": refusal}))


class World:
    """A BIND with a zone and keys, and a CA that asks it."""

    def __init__(self, folder, weir, named):
        self.folder, self.weir = folder, weir
        self.processes = []
        self.keys = {algorithm: base64.b64encode(secrets.token_bytes(32)).decode() for algorithm in ALGORITHMS}
        self.dns, self.directory, self.management, self.secure = (free() for _ in range(4))
        try:
            self.start_bind(named)
            self.start_ca()
        except BaseException:
            self.end()
            raise

    def start_bind(self, named):
        keys = "".join(f'key "{name}" {{ algorithm {name}; secret "{secret}"; }};\n' for name, secret in self.keys.items())
        grants = " ".join(f'grant "{name}" zonesub TXT;' for name in self.keys)
        (self.folder / "named.conf").write_text(f"""{keys}
options {{
    directory "{self.folder}"; pid-file "named.pid"; session-keyfile "session.key"; recursion no; dnssec-validation no;
    listen-on port {self.dns} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
}};
controls {{ }};
zone "{ZONE}" {{ type primary; file "zone"; update-policy {{ {grants} }}; }};
""")
        (self.folder / "zone").write_text(f"""$TTL 30
@ IN SOA ns.{ZONE}. admin.{ZONE}. 1 600 60 3600 30
@ IN NS ns.{ZONE}.
ns IN A 127.0.0.1
""")
        self.start("named.log", [named, "-g", "-c", str(self.folder / "named.conf")])
        eventually("BIND", lambda: self.answers(ZONE, 6) == 1)

    def start_ca(self):
        def openssl(*words):
            subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True)

        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-subj", "/CN=localhost", "-keyout", "ca.key", "-out", "ca.pem", "-addext", "subjectAltName=DNS:localhost",
                "-addext", "basicConstraints=critical,CA:FALSE")
        (self.folder / "pebble.json").write_text(json.dumps({"pebble": {
            "listenAddress": f"127.0.0.1:{self.directory}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(self.folder / "ca.pem"),
            "privateKey": str(self.folder / "ca.key"),
            "httpPort": 1,
            "tlsPort": 1,
        }}))
        self.start("pebble.log", ["pebble", "-config", str(self.folder / "pebble.json"), "-strict",
                                  "-dnsserver", f"127.0.0.1:{self.dns}"],
                   PEBBLE_VA_NOSLEEP="1", PEBBLE_AUTHZREUSE="0")
        eventually("the CA", lambda: is_open(self.directory))

    def prove(self, algorithm):
        """Gets a certificate for the domain and all below it; how long it took."""
        begun = time.monotonic()
        process, log = self.run(algorithm, self.keys[algorithm])
        storage = self.folder / algorithm / "acme.json"

        def certificates():
            text = storage.read_text() if storage.exists() else ""
            return len((json.loads(text or "{}").get("le") or {}).get("Certificates") or [])

        eventually(f"a certificate by {algorithm}", lambda: certificates() == 1, log)
        seconds = round(time.monotonic() - begun, 1)
        eventually("no record left", lambda: self.answers(RECORD, 16) == 0, log)
        stop(process)
        return seconds

    def refuse(self):
        """What is said of a key that is not BIND's."""
        process, log = self.run("hmac-sha256", base64.b64encode(b"of somebody else").decode(), "wrong")
        eventually("a refusal", lambda: "failed to obtain a certificate" in log.read_text(), log)
        stop(process)
        line = next(line for line in log.read_text().splitlines() if "failed to obtain a certificate" in line)
        words = line[line.index("failed to make the TXT record"):]
        check("has another secret for the key `hmac-sha256.`" in words, words)
        check("b2Ygc29tZWJvZHkgZWxzZQ" not in log.read_text(), "the secret is not logged")
        return words

    def run(self, algorithm, secret, name=None):
        folder = self.folder / (name or algorithm)
        folder.mkdir()
        dns = {"provider": "rfc2136", "resolvers": [f"127.0.0.1:{self.dns}"],
               "propagation": {"disableANSChecks": True, "requireAllRNS": True}}
        (folder / "weir.yaml").write_text(json.dumps({
            "entryPoints": {"websecure": {"address": f"127.0.0.1:{self.secure}"}},
            "providers": {"file": {"filename": str(folder / "routes.yaml")}},
            "certificatesResolvers": {"le": {"acme": {
                "storage": str(folder / "acme.json"),
                "caServer": f"https://localhost:{self.directory}/dir",
                "caCertificates": [str(self.folder / "ca.pem")],
                "keyType": "EC256",
                "dnsChallenge": dns,
            }}},
        }))
        domains = [{"main": ZONE, "sans": [f"*.{ZONE}"]}]
        tls = {"certResolver": "le", "domains": domains}
        router = {"rule": f"Host(`{ZONE}`)", "service": "whoami@internal", "tls": tls}
        (folder / "routes.yaml").write_text(json.dumps({"http": {"routers": {"one": router}}}))
        process = self.start(f"{folder.name}.log", [self.weir, f"--configFile={folder}/weir.yaml"],
                             RFC2136_NAMESERVER=f"127.0.0.1:{self.dns}", RFC2136_TSIG_KEY=algorithm,
                             RFC2136_TSIG_ALGORITHM=f"{algorithm}.", RFC2136_TSIG_SECRET=secret,
                             RFC2136_POLLING_INTERVAL="1")
        return process, self.folder / f"{folder.name}.log"

    def answers(self, name, kind):
        """How many records BIND has."""
        labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        question = struct.pack(">6H", 7, 0, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", kind, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(1)
            client.connect(("127.0.0.1", self.dns))
            try:
                client.send(question)
                return struct.unpack(">6H", client.recv(4096)[:12])[3]
            except OSError:
                return None

    def updates(self, words):
        log = (self.folder / "named.log").read_text().splitlines()
        return sum(f"updating zone '{ZONE}/IN': {words}" in line and RECORD in line for line in log)

    def start(self, log, command, **variables):
        with open(self.folder / log, "wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **variables})
        self.processes.append(process)
        return process

    def end(self):
        for process in reversed(self.processes):
            stop(process)


def stop(process):
    process.terminate()
    process.wait(30)


def free():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def is_open(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def eventually(what, is_so, log=None):
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"this never came: {what}\n{log.read_text() if log else ''}")
        time.sleep(0.1)


def check(is_so, what):
    if not is_so:
        raise SystemExit(f"this is not so: {what}")


if __name__ == "__main__":
    main()
