"""The serving image on this machine: built by a real builder, and run as SageMaker runs it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from waiting import wait_until

from cli.serving.container_image import DOCKERFILE, build_image, builder_environment

USER = 10001
WRITABLE = ("/tmp", "/var/tmp", "/run/lock")


def debian_base(buildah: Path) -> str:
    """Return the name of a base image made from Debian's packages, for machines that reach no container registry."""
    name, environment = "localhost/kennel-debian", builder_environment(buildah)

    def run(*command: str | Path) -> str:
        return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    if run(buildah, "images", "--quiet", "--filter", f"reference={name}"):
        return name
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "base.tar")
        packages = "--include=python3,python-is-python3,python3-venv,python3-pip,ca-certificates"
        run("mmdebstrap", "--quiet", "--variant=minbase", "--skip=output/dev", packages, "bookworm", archive)
        container = run(buildah, "from", "scratch")
        run(buildah, "add", "--quiet", container, archive, "/")
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
    """The image, started as SageMaker starts it, but locked up."""

    process: subprocess.Popen[bytes]
    log: Path
    #: What a shell script prints in the container, as its user.
    look: Callable[[str], str]

    def ask(self, path: str, body: bytes = b"") -> tuple[int, str]:
        """Ask from inside the container's network, by POST with a body, else GET; status 0: it was not reached."""
        network = ["nsenter", f"--net=/proc/{self.process.pid}/ns/net"]
        send = ["--data-binary", "@-", "--header", "Content-Type: image/png"] if body else []
        ask = ["curl", "--silent", "--write-out", "%{http_code}", *send, f"http://127.0.0.1:8080{path}"]
        done = subprocess.run([*network, *ask], input=body, capture_output=True, check=False, timeout=120)
        return int(done.stdout[-3:] or 0), done.stdout[:-3].decode()

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return self.ask("/ping")[0] == 200

        wait_until(ready, 60)


@contextlib.contextmanager
def container(buildah: Path, tag: str, artifact: Path, log: Path, **variables: str) -> Iterator[Container]:
    """Run the image: one argument, its own user, the artifact read-only, no network but the loopback interface.

    It has no capabilities, and the folders that everybody may write to are read-only, and so all of its file system.
    """
    environment = builder_environment(buildah)

    def run(*command: str) -> str:
        done = subprocess.run([buildah, *command], env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    name = run("from", "--pull-never", tag)
    options = [f"--env={variable}={value}" for variable, value in variables.items()]
    (empty := log.with_name("empty")).mkdir()
    locked = [f"--user={USER}:{USER}", "--cap-drop=all", *(f"--volume={empty}:{it}:ro" for it in WRITABLE)]
    serve = [*locked, f"--volume={artifact}:/opt/ml/model:ro", *options, name, "serve"]
    own_network = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", str(buildah), "run", *serve]
    with log.open("wb") as output:
        process = subprocess.Popen(own_network, env=environment, stdout=output, stderr=output, start_new_session=True)
    try:
        yield Container(process, log, lambda script: run("run", *locked, name, "sh", "-c", script))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        run("rm", name)
