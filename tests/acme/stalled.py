#!/usr/bin/env python3
"""500 handshakes that offer `acme-tls/1` and then say no more: the connections are gone within 10 s, and so are their descriptors.

Half of them stop in the middle of the ClientHello, the others after it. The last line is JSON; the status is not 0 if they stay."""

import json
import os
import pathlib
import select
import socket
import ssl
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CLIENTS = 500
SECONDS = 10.0
# To see that they are gone.
MARGIN = 1.0


def main():
    with tempfile.TemporaryDirectory(prefix="stalled-") as folder:
        port = free()
        (pathlib.Path(folder) / "weir.yaml").write_text(f"""
entryPoints: {{websecure: {{address: "127.0.0.1:{port}"}}}}
limits: {{connections: 2000, connectionsPerClient: 2000}}
certificatesResolvers:
  le: {{acme: {{storage: {folder}/acme.json, caServer: "https://127.0.0.1:1/dir", tlsChallenge: {{}}}}}}
""")
        command = [ROOT / "target/release/weir", f"--configFile={folder}/weir.yaml"]
        weir = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            figures = stall(weir.pid, port)
        finally:
            weir.terminate()
            weir.wait(30)
    figures["ok"] = figures["seconds"] <= SECONDS + MARGIN and figures["descriptors_left"] <= 0
    print(json.dumps(figures))
    raise SystemExit(0 if figures["ok"] else 1)


def stall(pid, port):
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.05)
    time.sleep(0.5)
    before = len(os.listdir(f"/proc/{pid}/fd"))
    hello = client_hello()
    clients = []
    begun = time.monotonic()
    for number in range(CLIENTS):
        client = socket.create_connection(("127.0.0.1", port), 5)
        client.sendall(hello if number % 2 else hello[: len(hello) // 2])
        clients.append(client)
    opened = time.monotonic() - begun
    most = len(os.listdir(f"/proc/{pid}/fd")) - before
    left = set(clients)
    while left and time.monotonic() - begun < 60:
        for client in select.select(list(left), [], [], 0.1)[0]:
            try:
                if client.recv(65536):
                    continue
            except OSError:
                pass
            left.discard(client)
    seconds = time.monotonic() - begun
    time.sleep(0.5)
    after = len(os.listdir(f"/proc/{pid}/fd"))
    return {
        "clients": CLIENTS,
        "opened_in": round(opened, 2),
        "descriptors_at_most": most,
        "seconds": round(seconds, 2),
        "still_open": len(left),
        "descriptors_left": after - before,
    }


def client_hello():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["acme-tls/1"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        context.wrap_bio(incoming, outgoing, server_hostname="a.example.org").do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def free():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    main()
