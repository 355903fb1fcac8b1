"""The serving image on this machine: built by a real builder, and run as SageMaker runs it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from local_aws_harness import wait_until

from cli.container_image import CONTEXT, build_image, builder_environment

USER = 10001
#: Asks the server from inside the container's network, which has nothing but the loopback interface.
_CLIENT = """
import base64, http.client, json, sys
requests = json.load(sys.stdin)
answers = []
for method, path, body in requests:
    connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=60)
    headers = {"Content-Type": "image/png"} if body else {}
    connection.request(method, path, base64.b64decode(body) if body else None, headers)
    response = connection.getresponse()
    answers.append([response.status, response.read().decode()])
print(json.dumps(answers))
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
    """Build the image; return the base that it was built on.

    The Dockerfile's own base where it can be pulled, else one made from Debian's packages.
    """
    lines = (CONTEXT / "Dockerfile").read_text(encoding="utf-8").splitlines()
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

    def ask(self, *requests: tuple[str, str, bytes]) -> list[tuple[int, str]]:
        """Send requests (method, path, body) from inside the container's network; return statuses and bodies."""
        return self.answers(self.send(*requests))

    def send(self, *requests: tuple[str, str, bytes]) -> subprocess.Popen[str]:
        """Send requests without waiting for `answers`."""
        command = ["nsenter", f"--net=/proc/{self.process.pid}/ns/net", sys.executable, "-c", _CLIENT]
        client = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert client.stdin is not None
        client.stdin.write(
            json.dumps([[method, path, base64.b64encode(body).decode()] for method, path, body in requests])
        )
        client.stdin.close()
        client.stdin = None
        return client

    def answers(self, client: subprocess.Popen[str]) -> list[tuple[int, str]]:
        """Return the answers to what `send` sent; none where the server could not be reached."""
        output, _ = client.communicate(timeout=120)
        return [(status, body) for status, body in json.loads(output)] if client.returncode == 0 else []

    def server(self) -> psutil.Process | None:
        """Return the process that SageMaker would send its signals to: the one that buildah's runtime has started."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            parent = process.parent()
            if parent is not None and parent.cmdline()[:1] == ["buildah-chroot-exec"]:
                return process
        return None

    def wait_until_ready(self) -> None:
        """Wait for the health check's 200."""

        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return [status for status, _ in self.ask(("GET", "/ping", b""))] == [200]

        wait_until(ready, 60)

    def wait_until_at_work(self) -> None:
        """Wait until the workers compute."""
        server = self.server()
        assert server is not None, self.log.read_text()
        workers = server.children(recursive=True)

        def used() -> float:
            return sum(sum(worker.cpu_times()[:2]) for worker in workers)

        before = used()
        wait_until(lambda: used() > before + 0.1)

    def terminate(self) -> None:
        """Send SIGTERM, as SageMaker does before it takes an instance away."""
        server = self.server()
        assert server is not None, self.log.read_text()
        server.send_signal(signal.SIGTERM)


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
    own_network = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*own_network, str(buildah), "run", *serve],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Container(process, log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        run("rm", name)
