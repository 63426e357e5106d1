#!/usr/bin/env python3
"""What the pages on plugins in other languages promise, done as they say it: for each language a template is written, and
the commands of its README are run as they stand, beside a proxy that runs all the time. `tests/languages.py c python`; all
five without arguments. `--examples` builds and tests the plugins of plugins/examples/<language> too, and drops them in.

Toolchains come by pip and npm, in the versions of the pages, into target/languages; what is there already is kept. Each
command is printed with the time that it took."""

import argparse
import contextlib
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY / "target" / "languages"
LANGUAGES = ["rust", "c", "go", "python", "js"]
NAME = "first-try"
HEADER = "x-first-try: seen"
COMMANDS_AT_MOST = 5
# A component with Python in it is compiled in ten seconds by a machine that does nothing else.
PATIENCE = 300
# Variables of the caller that would lead tools elsewhere, by what they begin with.
FOREIGN = ("PYTHON", "VIRTUAL_ENV", "GO", "CARGO_TARGET_", "CARGO_BUILD_")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("languages", nargs="*", metavar="language", help=", ".join(LANGUAGES))
    parser.add_argument("--examples", action="store_true")
    parser.add_argument("--weir", type=pathlib.Path, default=REPOSITORY / "target" / "release" / "weir")
    asked = parser.parse_args()
    if unknown := set(asked.languages) - set(LANGUAGES):
        parser.error(f"there is no template for {', '.join(sorted(unknown))}")

    passed = 0
    for language in asked.languages or LANGUAGES:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="weir-") as folder:
            first_request(language, pathlib.Path(folder), asked.weir.resolve())
            passed += 1
            if asked.examples:
                passed += examples(language, pathlib.Path(folder), asked.weir.resolve())
        print(f"{language}: {time.monotonic() - begun:.0f} s", flush=True)
    print(f"{passed} passed, 0 failed")


def first_request(language, folder, weir):
    """From nothing to the first request, by the commands of the project's own README."""
    environment = tools(weir)
    project = folder / NAME
    new = [weir, "plugin", "new", NAME, "--lang", language, "--into", project]
    subprocess.run(new, check=True, env=environment, stdout=subprocess.DEVNULL)
    page = Page(project / "README.md")
    if len(page.commands) > COMMANDS_AT_MOST:
        fail(f"{page.path}: {len(page.commands)} commands")
    with Proxy(weir, folder, page, environment) as proxy:
        for command in page.commands[:-1]:
            run(proxy.here(command), project, environment)
        proxy.eventually(proxy.here(page.commands[-1]), HEADER, project, environment)
    run(test_command(page), project, environment)


def examples(language, folder, weir):
    """The commands of each example's page. What it shows below one has to be in the answer, sooner or later."""
    environment = tools(weir)
    done = 0
    for path in sorted((REPOSITORY / "plugins" / "examples" / language).glob("*/README.md")):
        page = Page(path)
        with Proxy(weir, folder / path.parent.name, page, environment) as proxy, Background() as background:
            for command in page.commands:
                here = proxy.here(command)
                if here.endswith(" &"):
                    background.start(here.removesuffix(" &"), path.parent, environment)
                elif expected := page.expected(command):
                    proxy.eventually(here, proxy.here(expected), path.parent, environment)
                else:
                    run(here, path.parent, environment)
        done += 1
    return done


class Page:
    """The first block of YAML of a page, its grants, and the commands of its first block of shell."""

    def __init__(self, path):
        self.path = path
        self.text = path.read_text()
        blocks = re.findall(r"```(\w+)\n(.*?)```", self.text, re.DOTALL)
        self.yaml = next((text for kind, text in blocks if kind == "yaml"), "")
        # What an administrator has to grant, below the key `plugins` of the install file.
        settings = [text for kind, text in blocks if kind == "yaml" and text.startswith("plugins:\n")]
        self.settings = settings[0].removeprefix("plugins:\n") if settings else ""
        self.lines = next((text for kind, text in blocks if kind == "console"), "").splitlines()
        self.commands = [line[2:] for line in self.lines if line.startswith("$ ")]
        # Those that it tells to set have any value here.
        self.variables = {name: "any" for name in re.findall(r"^\$ export (\w+)=", self.text, re.MULTILINE)}

    @property
    def is_middleware(self):
        return "middlewares:" in self.yaml

    def expected(self, command):
        """The line that the page shows below the command, if it shows one."""
        shown = self.lines[self.lines.index(f"$ {command}") + 1 :]
        return shown[0] if shown and not shown[0].startswith("$ ") else None


def test_command(page):
    found = re.search(r"`([^`]+)`\s+runs\s+the\s+tests", page.text)
    return found[1] if found else fail(f"{page.path} does not say what runs the tests")


class Proxy:
    """A proxy with the configuration of a page and an empty plugin folder."""

    def __init__(self, weir, folder, page, environment):
        self.folder = folder / "etc"
        self.plugins = self.folder / "plugins"
        self.plugins.mkdir(parents=True)
        # The proxy, and a server that a page has beside it.
        address = f"127.0.0.1:{free_port()}"
        self.places = {"localhost:8000": address, "localhost:8001": f"localhost:{free_port()}"}
        self.places |= {"/etc/weir/": f"{self.folder}/", "/var/lib/weir/": f"{self.folder}/"}
        (self.folder / "routing.yaml").write_text(self.here(page.yaml) if page.is_middleware else "")
        (self.folder / "weir.yaml").write_text(
            f"entryPoints: {{web: {{address: '{address}'}}}}\n"
            f"providers: {{file: {{filename: '{self.folder}/routing.yaml'}}}}\n"
            f"plugins:\n  directory: '{self.plugins}'\n  cache: {{directory: '{self.folder}/cache'}}\n"
            f"{self.here(page.settings)}{'' if page.is_middleware else self.here(page.yaml)}"
        )
        self.command = [weir, f"--configFile={self.folder}/weir.yaml"]
        self.environment = environment | page.variables

    def __enter__(self):
        (self.folder / "cache").mkdir(mode=0o700)
        self.log = open(self.folder / "log", "w+")
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log, env=self.environment)
        return self

    def __exit__(self, *_):
        alive = self.process.poll() is None
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.log.close()
        if not alive:
            fail("the proxy has ended by itself")

    def here(self, text):
        """Text of a page with the addresses and folders of this proxy in it."""
        for name, place in self.places.items():
            text = text.replace(name, place)
        return text

    def eventually(self, command, expected, folder, environment):
        pipes = {"capture_output": True, "text": True, "errors": "replace"}
        end = time.monotonic() + PATIENCE
        with stage(f"$ {command}"):
            while True:
                answer = subprocess.run(command, shell=True, cwd=folder, env=environment, **pipes).stdout
                if expected in answer:
                    return
                if time.monotonic() > end:
                    self.log.seek(0)
                    fail(f"no `{expected}` in the answer:\n{answer}\n{self.log.read()}")
                time.sleep(0.1)


class Background:
    """What a page leaves running, until its end."""

    def __enter__(self):
        self.processes = []
        return self

    def start(self, command, folder, environment):
        print(f"$ {command} &", flush=True)
        output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes.append(subprocess.Popen(f"exec {command}", shell=True, cwd=folder, env=environment, **output))

    def __exit__(self, *_):
        for process in self.processes:
            process.terminate()
            process.wait()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def tools(weir):
    """An environment in which `weir`, `pip`, `python3` and what they install are found first."""
    bin = TOOLS / "bin"
    if not (bin / "pip").exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        if subprocess.run([sys.executable, "-c", "import ensurepip"], stderr=subprocess.DEVNULL).returncode:
            fail("Python's venv is missing. As root: apt-get install --yes python3-venv")
        subprocess.run([sys.executable, "-m", "venv", TOOLS], check=True)
    link = bin / "weir"
    link.unlink(missing_ok=True)
    link.symlink_to(weir)
    kept = {name: os.environ[name] for name in os.environ if not name.startswith(FOREIGN)}
    return kept | {
        "PATH": f"{bin}:{os.environ['PATH']}",
        # Crates that several pages need are compiled once.
        "CARGO_BUILD_BUILD_DIR": str(TOOLS / "cargo"),
        "GOPATH": str(TOOLS / "go"),
        "GOCACHE": str(TOOLS / "go-build"),
        "GOFLAGS": "-modcacherw",
        "npm_config_cache": str(TOOLS / "npm"),
        "npm_config_fund": "false",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "ZIG_GLOBAL_CACHE_DIR": str(TOOLS / "zig"),
    }


def run(command, folder, environment):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    with stage(f"$ {command}"):
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, **pipes)
    if done.returncode:
        fail(f"`{command}` ended with {done.returncode}:\n{done.stdout}")


@contextlib.contextmanager
def stage(name):
    """Says what is done, and then how long it took."""
    begun = time.monotonic()
    print(name, end="", flush=True)
    yield
    print(f"    # {time.monotonic() - begun:.1f} s", flush=True)


def fail(why):
    print(f"tests/languages.py: {why}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
