#!/usr/bin/env python3
"""An issuer to try `jwt` with, and for nothing else, since it gives a token to everybody: `issuer.py localhost:8001` answers
/jwks.json and /token?sub=alice. Its key is made by `openssl` and gone when it ends."""

import base64
import http.server
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.parse


def main():
    address = sys.argv[1]
    host, port = address.split(":")
    with tempfile.TemporaryDirectory() as folder:
        Issuer.url = f"http://{address}"
        Issuer.key = pathlib.Path(folder) / "key.pem"
        openssl("genrsa", "-out", Issuer.key, "2048")
        http.server.ThreadingHTTPServer((host, int(port)), Issuer).serve_forever()


class Issuer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked = urllib.parse.urlsplit(self.path)
        if asked.path == "/jwks.json":
            self.answer(json.dumps({"keys": [self.public_key()]}))
        elif asked.path == "/token":
            self.answer(self.token(urllib.parse.parse_qs(asked.query).get("sub", ["alice"])[0]))
        else:
            self.send_error(404)

    def public_key(self):
        modulus = openssl("rsa", "-in", self.key, "-noout", "-modulus").decode().strip().removeprefix("Modulus=")
        return {"kty": "RSA", "use": "sig", "n": base64url(bytes.fromhex(modulus)), "e": "AQAB"}

    def token(self, subject):
        claims = {"iss": self.url, "aud": "web", "sub": subject, "exp": int(time.time()) + 600}
        signed = ".".join(base64url(json.dumps(part).encode()) for part in [{"alg": "RS256"}, claims])
        return f"{signed}.{base64url(openssl('dgst', '-sha256', '-sign', self.key, given=signed.encode()))}"

    def answer(self, text):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(text.encode())


def openssl(*arguments, given=b""):
    done = subprocess.run(["openssl", *arguments], input=given, check=True, capture_output=True)
    return done.stdout


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


if __name__ == "__main__":
    main()
