"""The serving image on this machine: built by a real builder, and run as SageMaker runs it."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from waiting import wait_until

from cli.serving.container_image import DOCKERFILE, build_image, builder_environment

USER = 10001
#: Asks the server from inside the container's network, which has nothing but the loopback interface.
_CLIENT = """
import base64, http.client, sys
path, body = sys.argv[1], base64.b64decode(sys.stdin.read())
connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
connection.request("POST" if body else "GET", path, body or None, {"Content-Type": "image/png"})
response = connection.getresponse()
print(response.status, response.read().decode())
"""


def debian_base(buildah: Path) -> str:
    """Return the name of a base image made from Debian's packages, for machines that reach no container registry."""
    name, environment = "localhost/kennel-debian-base", builder_environment(buildah)

    def run(*command: str | Path) -> str:
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    if run(buildah, "images", "--quiet", "--filter", f"reference={name}"):
        return name
    with tempfile.TemporaryDirectory() as folder:
        archive, root = Path(folder, "base.tar"), Path(folder, "root")
        packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
        run("mmdebstrap", "--quiet", "--variant=minbase", packages, "bookworm", archive)
        root.mkdir()
        run("tar", "--extract", "--file", archive, "--directory", root, "--exclude=./dev/*")
        (root / "usr/bin/python").symlink_to("python3")
        for marker in root.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        container = run(buildah, "from", "scratch")
        run(buildah, "copy", "--quiet", container, root, "/")
        run(buildah, "commit", "--quiet", container, name)
        run(buildah, "rm", container)
    return name


def build(buildah: Path, tag: str) -> str:
    """Build the image on the Dockerfile's base, or on `debian_base` where that cannot be pulled; return the base."""
    lines = DOCKERFILE.read_text(encoding="utf-8").splitlines()
    base = next(line.removeprefix("ARG BASE=") for line in lines if line.startswith("ARG BASE="))
    pull = [buildah, "pull", "--quiet", base]
    pulled = subprocess.run(pull, env=builder_environment(buildah), capture_output=True, check=False, timeout=300)
    chosen = base if pulled.returncode == 0 else debian_base(buildah)
    # How this machine's pip finds packages.
    places = [place for place in ("/etc/ssl/certs", "/etc/pip.conf", "/etc/xdg/pip") if Path(place).exists()]
    build_image(buildah, tag, base=chosen, volumes=[f"{place}:{place}:ro" for place in places])
    return chosen


@dataclass
class Container:
    """The image, started as SageMaker starts it."""

    process: subprocess.Popen[bytes]
    log: Path

    def send(self, path: str, body: bytes = b"") -> subprocess.Popen[str]:
        """Send a request from inside the container's network: a POST with a body, else a GET."""
        command = ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", sys.executable, "-c", _CLIENT, path]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        client = subprocess.Popen(command, text=True, **pipes)
        assert client.stdin is not None
        client.stdin.write(base64.b64encode(body).decode())
        client.stdin.close()
        client.stdin = None
        return client

    def answer(self, client: subprocess.Popen[str]) -> tuple[int, str]:
        """Return the status and the body of what answers `send`; 0 where the server could not be reached."""
        status, _, body = client.communicate(timeout=120)[0].partition(" ")
        return int(status or 0), body

    def server(self) -> psutil.Process:
        """Return the process that SageMaker would send its signals to: the one that buildah's runtime has started."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            parent = process.parent()
            if parent is not None and parent.cmdline()[:1] == ["buildah-chroot-exec"]:
                return process
        raise AssertionError(self.log.read_text())

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.answer(self.send("/ping"))[0] == 200

        wait_until(ready, 60)

    def wait_until_at_work(self) -> None:
        """Wait until the workers compute."""
        workers = self.server().children(recursive=True)

        def used() -> float:
            return sum(sum(worker.cpu_times()[:2]) for worker in workers)

        before = used()
        wait_until(lambda: used() > before + 0.1)


@contextlib.contextmanager
def container(buildah: Path, tag: str, artifact: Path, log: Path, **variables: str) -> Iterator[Container]:
    """Run the image: one argument, its own user, the artifact read-only, no network but the loopback interface."""
    environment = builder_environment(buildah)

    def run(*command: str) -> str:
        done = subprocess.run([buildah, *command], env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    name = run("from", "--pull-never", tag)
    options = [f"--env={variable}={value}" for variable, value in variables.items()]
    serve = [f"--user={USER}:{USER}", f"--volume={artifact}:/opt/ml/model:ro", *options, name, "serve"]
    own_network = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", str(buildah), "run", *serve]
    with log.open("wb") as output:
        process = subprocess.Popen(own_network, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield Container(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        run("rm", name)
