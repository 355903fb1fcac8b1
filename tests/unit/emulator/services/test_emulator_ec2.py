"""Instances of the local AWS: the power switch, the metadata service, and what a launch template adds to a request."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulator_fixtures import eventually, full_disk, make_host

from emulator.ec2 import power
from emulator.ec2.instance import InstanceRun, LaunchedInstance, console_output
from emulator.ec2.metadata import MetadataService
from emulator.ministack.instances import _parameters, _with_template
from emulator.platform.errors import ServiceError

ROLES = "/latest/meta-data/iam/security-credentials/"
KEYS = {"AWS_ACCESS_KEY_ID": "ASIA1", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "token"}


@pytest.fixture
def switch(tmp_path: Path) -> tuple[Path, power.PowerSwitch]:
    """A folder with the commands, and what they press."""
    power.install(tmp_path / "bin", tmp_path / "calls")
    return tmp_path / "bin", power.PowerSwitch(tmp_path / "calls")


@pytest.mark.parametrize(
    ("calls", "pressed"),
    [
        (["shutdown now"], True),
        (["shutdown -h +0"], True),
        (["poweroff"], True),
        (["halt -p"], True),
        (["systemctl poweroff"], True),
        (["init 0"], True),
        ([], False),
        (["shutdown -P +90"], False),
        (["shutdown -P +0", "shutdown -c"], False),
        (["shutdown -P +90", "shutdown -P now"], True),
        (["shutdown -r now"], False),
        (["reboot"], False),
        (["systemctl restart amazon-ssm-agent"], False),
        (["shutdown tomorrow"], False),
        (["shutdown 24:00", "shutdown 9:99"], False),
    ],
)
def test_the_power_switch_understands_what_programs_call(
    switch: tuple[Path, power.PowerSwitch], calls: list[str], pressed: bool
) -> None:
    commands, found = switch
    for call in calls:
        name, *arguments = call.split()
        subprocess.run([str(commands / name), *arguments], check=True)
    assert found.pressed() is pressed


@pytest.mark.parametrize(
    "script", ["/sbin/shutdown now", "/usr/sbin/poweroff", "exec /bin/systemctl poweroff", "sudo x"]
)
def test_ways_past_the_power_switch_are_recognised(script: str) -> None:
    assert power.dangerous(f"#!/bin/bash\n{script}\n")
    assert not power.dangerous("#!/bin/bash\nshutdown -P now; echo pseudo\n")


@pytest.fixture
def metadata() -> Iterator[MetadataService]:
    entries = {"instance-id": "i-1", "tags/instance/training-job": "job", "placement/region": "eu-west-1"}
    service = MetadataService(lambda: entries, ("role", lambda: KEYS))
    yield service
    service.close()


def fetch(service: MetadataService, path: str, token: str | None = None, method: str = "GET", **headers: str) -> str:
    request = urllib.request.Request(f"{service.url}{path}", method=method, headers=headers)
    if token is not None:
        request.add_header("X-aws-ec2-metadata-token", token)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return str(answer.read().decode())


def new_token(service: MetadataService) -> str:
    return fetch(service, "/latest/api/token", method="PUT", **{"X-aws-ec2-metadata-token-ttl-seconds": "60"})


def test_metadata_are_entries_and_listings(metadata: MetadataService) -> None:
    token = new_token(metadata)
    assert fetch(metadata, "/latest/meta-data/instance-id", token) == "i-1"
    assert fetch(metadata, "/latest/meta-data/tags/instance/training-job", token) == "job"
    assert fetch(metadata, "/latest/meta-data/", token).split() == ["iam/", "instance-id", "placement/", "tags/"]
    assert fetch(metadata, ROLES, token) == "role"
    document = json.loads(fetch(metadata, f"{ROLES}role", token))
    assert (document["Code"], document["AccessKeyId"], document["Token"]) == ("Success", "ASIA1", "token")


def test_metadata_need_a_token_of_the_service_and_only_know_what_there_is(metadata: MetadataService) -> None:
    good = new_token(metadata)
    for path, token, method, status in (
        *((f"{ROLES}role", token, "GET", "401") for token in (None, "", "guess")),
        *((path, good, "GET", "404") for path in ("/latest/meta-data/spot/instance-action", f"{ROLES}other", "/x")),
        ("/latest/api/token", None, "PUT", "400"),
    ):
        with pytest.raises(urllib.error.HTTPError, match=status):
            fetch(metadata, path, token, method)


def test_other_programs_of_the_machine_get_no_metadata(metadata: MetadataService) -> None:
    address, _, secret = metadata.url.rpartition("/")
    headers = {"X-aws-ec2-metadata-token": new_token(metadata), "X-aws-ec2-metadata-token-ttl-seconds": "60"}
    for guess in ("", "/", "/x", f"/{secret[:-1]}", f"/{'x' * len(secret)}"):
        for method, path in (("PUT", "/latest/api/token"), ("GET", f"{ROLES}role")):
            request = urllib.request.Request(address + guess + path, method=method, headers=headers)
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(request, timeout=5)


def test_a_role_that_does_not_trust_ec2_gives_no_keys() -> None:
    def refuse() -> dict[str, str]:
        raise ServiceError("ValidationException", "no trust")

    service = MetadataService(dict, ("role", refuse))
    try:
        answer = fetch(service, f"{ROLES}role", new_token(service))
        assert json.loads(answer)["Code"] == "AssumeRoleUnauthorizedAccess"
    finally:
        service.close()


class Machine:
    """One instance, and what it says of its end."""

    def __init__(self, folder: Path, user_data: str) -> None:
        self.host = make_host(folder, service="ec2")
        self.root = folder / "ec2" / "i-1" / "root"
        self.ended: list[int] = []
        launched = LaunchedInstance("i-1", "t3.micro", "eu-west-1", user_data)
        self.run = InstanceRun(self.host, launched, lambda: self.ended.append(1))
        self.run.start()

    def prints(self, text: bytes) -> None:
        """Wait until that is on the console."""
        eventually(lambda: text in console_output(self.host, "i-1"))

    def stop(self) -> None:
        self.run.stop()
        self.run.join(30)
        assert not self.run.alive


def encoded(script: str) -> str:
    return base64.b64encode(script.encode()).decode()


def machine(folder: Path, *lines: str) -> Machine:
    return Machine(folder, encoded("\n".join(["#!/bin/bash", *lines, ""])))


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


def test_the_console_keeps_what_programs_print_after_the_user_data_has_ended(tmp_path: Path) -> None:
    found = machine(tmp_path, f"({waiting('go')}; echo later) &", "echo first")
    found.prints(b"user data exited")
    (found.root / "go").touch()
    found.prints(b"later")
    found.stop()
    lines = console_output(found.host, "i-1").decode().splitlines()
    assert lines == ["first", "[local AWS] user data exited with code 0", "later"]


def test_an_instance_whose_console_has_no_space_still_shuts_down_when_it_wants_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    say = InstanceRun._say
    monkeypatch.setattr(InstanceRun, "_say", lambda run, text: (say(run, text), said.append(text)))
    found = machine(tmp_path, f"({waiting('off')}; shutdown now) &", "touch running", waiting("go"))
    eventually((found.root / "running").exists)
    with full_disk():
        (found.root / "go").touch()
        eventually(lambda: said == ["user data exited with code 0"])
    assert b"exited" not in console_output(found.host, "i-1")
    (found.root / "off").touch()
    found.run.join(30)
    assert found.ended == [1]


@pytest.mark.parametrize(
    ("user_data", "says"),
    [
        *((data, b"no script") for data in ("", encoded("#cloud-config\n"), "%%%", base64.b64encode(b"\xff").decode())),
        (encoded("#!/no/such/interpreter\n"), b"cannot be started: No such file"),
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


def test_a_launch_template_fills_in_what_the_request_leaves_out() -> None:
    template: dict[str, Any] = {
        "ImageId": "resolve:ssm:/some/parameter",
        "InstanceType": "t3.xlarge",
        "UserData": "abc",
        "IamInstanceProfile": {"Arn": "arn:profile"},
        "SecurityGroupIds": ["sg-1", "sg-2"],
        "MetadataOptions": {"InstanceMetadataTags": "enabled", "HttpPutResponseHopLimit": 1},
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]},
            {"ResourceType": "volume", "Tags": [{"Key": "c", "Value": "3"}]},
        ],
    }
    given = {
        "InstanceType": "g5.xlarge",
        "TagSpecification.1.ResourceType": "instance",
        "TagSpecification.1.Tag.1.Key": "b",
        "TagSpecification.1.Tag.1.Value": "mine",
    }
    launch = _with_template(given, template)
    assert launch["InstanceType"] == "g5.xlarge"
    assert launch["ImageId"].startswith("ami-")
    assert launch["ImageId"] == _with_template({}, template)["ImageId"]
    assert launch["IamInstanceProfile.Arn"] == "arn:profile"
    assert (launch["SecurityGroupId.1"], launch["SecurityGroupId.2"]) == ("sg-1", "sg-2")
    assert launch["MetadataOptions.InstanceMetadataTags"] == "enabled"
    tags = {launch[f"TagSpecification.1.Tag.{n}.Key"]: launch[f"TagSpecification.1.Tag.{n}.Value"] for n in (1, 2)}
    assert tags == {"a": "1", "b": "mine"}
    assert _with_template({"SecurityGroupId.1": "sg-9"}, template).get("SecurityGroupId.2") is None


def test_a_request_without_a_template_stays_as_it_is() -> None:
    given = _parameters(b"Action=RunInstances&ImageId=ami-1", {"Version": ["2016-11-15"]})
    assert _with_template(given, {}) == given | {"TagSpecification.1.ResourceType": "instance"}
