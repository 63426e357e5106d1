#!/usr/bin/env python3
"""Rewrites in place under load, as `cp` does it: a routing file is emptied and written again in pieces, a thousand times.

Every prefix of the file that ends with a line is good YAML with fewer routers, so that whoever reads too early answers
404. Fails if one answer is wrong.
"""

import random
import time

from harness import TEXT, Connection, Load, Server, Weir, arguments, finish, spread, wait_for

ROUTERS = 200


def routes(url, version):
    routers = "".join(f"    r{number}:\n      rule: Host(`r{number}.example`)\n      service: s\n" for number in range(ROUTERS))
    return f"""
http:
  services:
    s: {{loadBalancer: {{servers: [{{url: "{url}"}}]}}}}
  routers:
{routers}    version: {{rule: "Host(`version.example`) && Path(`/{version}`)", service: s}}
""".encode()


def rewrite(path, content, random):
    """Writes pieces that end with a line, some of them after a pause that is longer than any editor's."""
    lines = content.splitlines(keepends=True)
    cuts = sorted(random.sample(range(len(lines)), 4))
    with path.open("wb", buffering=0) as file:
        for begin, end in zip([0, *cuts], [*cuts, len(lines)]):
            time.sleep(random.choice([0, 0, 0.001, 0.01, 0.1]))
            file.write(b"".join(lines[begin:end]))


def main():
    options = arguments(__doc__, rewrites=1000, rate=120, seed=1)
    chance = random.Random(options.seed)
    with Server() as server, Weir(options.binary, {"routing/a.yaml": routes(server.url, 0)}, options.keep) as weir:
        control = Connection(weir.address)
        applied = []
        with Load(
            weir.address,
            options.rate,
            lambda number: (f"r{number * 7 % ROUTERS}.example", "/"),
            lambda status, _, body: (status, body) == (200, TEXT),
        ) as load:
            for version in range(1, options.rewrites + 1):
                rewrite(weir.folder / "routing/a.yaml", routes(server.url, version), chance)
                begun = time.monotonic()
                wait_for(f"version {version}", lambda: control.get("version.example", f"/{version}")[0] == 200)
                applied.append(time.monotonic() - begun)
        finish({"rewrites": options.rewrites, **load.figures(), **spread(applied)}, {"failed": 0, "closed": 0})


main()
