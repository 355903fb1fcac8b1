"""Instances of the local AWS: the power switch, the metadata service, and what a launch template adds to a request."""

from __future__ import annotations

import base64
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from emulator_fixtures import make_host
from examples import examples
from waiting import wait_until

from emulator.ec2.instance import InstanceRun, LaunchedInstance, PowerSwitch, console_output
from emulator.ec2.metadata import MetadataService

ROLES = "/latest/meta-data/iam/security-credentials/"
KEYS = {"AWS_ACCESS_KEY_ID": "ASIA1", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}


@pytest.mark.parametrize(("calls", "pressed"), examples(__file__, "power_switch"))
def test_the_power_switch_understands_what_programs_call(
    tmp_path: Path, calls: list[str], pressed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.localtime", lambda: time.strptime("12:30", "%H:%M"))
    switch = PowerSwitch(tmp_path / "bin", tmp_path / "calls")
    for call in calls:
        name, *arguments = call.split()
        subprocess.run([str(tmp_path / "bin" / name), *arguments], check=True)
    assert switch.pressed() is pressed


@pytest.mark.parametrize("moment", ["tomorrow", "24:00", "12.30", "+"])
def test_a_time_that_cannot_be_read_is_refused_and_not_ignored(tmp_path: Path, moment: str) -> None:
    switch = PowerSwitch(tmp_path / "bin", tmp_path / "calls")
    command = [str(tmp_path / "bin" / "shutdown"), "-P", moment]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (1, f"Failed to parse time specification: {moment}\n")
    assert not switch.pressed()


@pytest.fixture
def metadata() -> Iterator[MetadataService]:
    entries = {"instance-id": "i-1", "tags/instance/training-job": "job", "placement/region": "eu-west-1"}
    service = MetadataService(lambda: entries, ("role", lambda: KEYS))
    yield service
    service.close()


def fetch(url: str, token: str | None = None, method: str = "GET", **headers: str) -> str:
    if token is not None:
        headers["X-aws-ec2-metadata-token"] = token
    with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=headers), timeout=5) as answer:
        return str(answer.read().decode())


def new_token(service: MetadataService) -> str:
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    return fetch(f"{service.url}/latest/api/token", method="PUT", **ttl)


def test_metadata_are_entries_and_listings(metadata: MetadataService) -> None:
    token = new_token(metadata)
    assert fetch(f"{metadata.url}/latest/meta-data/tags/instance/training-job", token) == "job"
    listing = fetch(f"{metadata.url}/latest/meta-data/", token)
    assert listing.split() == ["iam/", "instance-id", "placement/", "tags/"]
    assert fetch(f"{metadata.url}{ROLES}", token) == "role"
    document = json.loads(fetch(f"{metadata.url}{ROLES}role", token))
    assert (document["Code"], document["AccessKeyId"], document["Token"]) == ("Success", "ASIA1", "token")


def test_metadata_need_a_token_and_the_address_that_only_the_instance_is_told(metadata: MetadataService) -> None:
    good = new_token(metadata)
    address, _, secret = metadata.url.rpartition("/")
    for url, token, method, status in (
        *((f"{metadata.url}{ROLES}role", token, "GET", "401") for token in (None, "", "guess")),
        *((f"{metadata.url}{path}", good, "GET", "404") for path in ("/latest/meta-data/spot", f"{ROLES}other", "/x")),
        (f"{metadata.url}/latest/api/token", None, "PUT", "400"),
        *((f"{address}{guess}{ROLES}role", good, "GET", "40[14]") for guess in ("", "/x", f"/{secret[:-1]}")),
        *((f"{address}{guess}/latest/api/token", good, "PUT", "404") for guess in ("", f"/{'x' * len(secret)}")),
    ):
        with pytest.raises(urllib.error.HTTPError, match=status):
            fetch(url, token, method)


class Machine:
    def __init__(self, folder: Path, user_data: str) -> None:
        self.host = make_host(folder, service="ec2")
        self.root = folder / "ec2" / "i-1" / "root"
        self.ended: list[int] = []
        launched = LaunchedInstance("i-1", "t3.micro", "eu-west-1", user_data)
        self.run = InstanceRun(self.host, launched, lambda: self.ended.append(1))
        self.run.start()

    def prints(self, text: bytes) -> None:
        wait_until(lambda: text in console_output(self.host, "i-1"))

    def stop(self) -> None:
        self.run.stop()
        self.run.join(30)
        assert not self.run.alive


def encoded(*lines: str) -> str:
    return base64.b64encode("\n".join([*lines, ""]).encode()).decode()


def machine(folder: Path, *lines: str) -> Machine:
    return Machine(folder, encoded("#!/bin/bash", *lines))


def waiting(name: str) -> str:
    return f"while [ ! -e {name} ]; do sleep 0.05; done"


def test_an_instance_runs_its_user_data_in_a_home_of_its_own_until_it_shuts_itself_down(tmp_path: Path) -> None:
    says = "pwd; echo $HOME $AWS_ENDPOINT_URL; env | grep -c SECRET; dirname $TMPDIR"
    found = machine(tmp_path, says, "sleep 600 &", "shutdown -P now", "sleep 600")
    found.run.join(30)
    assert found.ended == [1]
    home, temporary = str(found.root), found.host.temporary
    assert console_output(found.host, "i-1").decode().split() == [home, home, "http://127.0.0.1:9", "0", str(temporary)]
    assert not found.root.exists()
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("also", ["", "shutdown now"])
def test_an_instance_that_is_ended_was_ended_also_while_it_shuts_down(tmp_path: Path, also: str) -> None:
    found = machine(
        tmp_path, f"trap 'echo stopping; {waiting('go')}; echo saved; exit' TERM", "echo ready", also, waiting("never")
    )
    found.prints(b"stopping" if also else b"ready")
    found.run.stop()
    (found.root / "go").touch()
    found.stop()
    assert found.ended == []
    assert b"saved" in console_output(found.host, "i-1")


@pytest.mark.parametrize(
    ("user_data", "says"),
    [
        (base64.b64encode(b"\xff").decode(), b"no script"),
        (encoded("#!/no/such/interpreter"), b"cannot be started: No such file"),
        *(
            (encoded("#!/bin/bash", script), b"is not run here: ")
            for script in ("/sbin/shutdown now", "exec /usr/bin/systemctl poweroff", "sudo x")
        ),
    ],
)
def test_user_data_that_cannot_run_leaves_an_instance_that_just_runs(
    tmp_path: Path, user_data: str, says: bytes
) -> None:
    found = Machine(tmp_path, user_data)
    found.prints(says)
    assert found.run.alive
    found.stop()
    assert found.ended == []
