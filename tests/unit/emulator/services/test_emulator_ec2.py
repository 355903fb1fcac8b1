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
from typing import Any

import pytest
from emulator_fixtures import eventually, full_disk, make_host

from emulator.ec2 import power
from emulator.ec2.instance import InstanceRun, LaunchedInstance, console_output
from emulator.ec2.metadata import MetadataService
from emulator.ministack.instances import _parameters, _with_template
from emulator.platform.errors import ServiceError

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
        (["shutdown -P now"], True),
        (["shutdown -h +0"], True),
        (["poweroff"], True),
        (["halt -p"], True),
        (["systemctl poweroff"], True),
        (["init 0"], True),
        ([], False),
        (["shutdown -P +90"], False),
        (["shutdown"], False),
        (["shutdown -P +0", "shutdown -c"], False),
        (["shutdown -P +90", "shutdown -P now"], True),
        (["shutdown -r now"], False),
        (["reboot"], False),
        (["systemctl restart amazon-ssm-agent"], False),
        (["shutdown tomorrow"], False),
        (["shutdown 24:00", "shutdown 9:99"], False),
        (["shutdown 24:00", "shutdown now"], True),
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
    assert fetch(metadata, "/latest/meta-data/iam/security-credentials/", token) == "role"
    document = json.loads(fetch(metadata, "/latest/meta-data/iam/security-credentials/role", token))
    assert (document["Code"], document["AccessKeyId"], document["Token"]) == ("Success", "ASIA1", "token")


@pytest.mark.parametrize("token", [None, "", "guess"])
def test_metadata_need_a_token_of_the_service(metadata: MetadataService, token: str | None) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        fetch(metadata, "/latest/meta-data/iam/security-credentials/role", token)


def test_other_programs_of_the_machine_get_no_metadata(metadata: MetadataService) -> None:
    address, _, secret = metadata.url.rpartition("/")
    token = new_token(metadata)
    for guess in ("", "/", "/x", f"/{secret[:-1]}", f"/{'x' * len(secret)}"):
        for method in ("GET", "PUT"):
            for path in ("/latest/api/token", "/latest/meta-data/iam/security-credentials/role"):
                headers = {"X-aws-ec2-metadata-token": token, "X-aws-ec2-metadata-token-ttl-seconds": "60"}
                request = urllib.request.Request(address + guess + path, method=method, headers=headers)
                with pytest.raises(urllib.error.HTTPError, match="404"):
                    urllib.request.urlopen(request, timeout=5)


def test_what_there_is_not_is_not_found(metadata: MetadataService) -> None:
    token = new_token(metadata)
    for path in ("/latest/meta-data/spot/instance-action", "/latest/meta-data/iam/security-credentials/other", "/x"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(metadata, path, token)
    with pytest.raises(urllib.error.HTTPError, match="400"):
        fetch(metadata, "/latest/api/token", method="PUT")


def test_a_role_that_does_not_trust_ec2_gives_no_keys() -> None:
    def refuse() -> dict[str, str]:
        raise ServiceError("ValidationException", "no trust")

    service = MetadataService(dict, ("role", refuse))
    try:
        answer = fetch(service, "/latest/meta-data/iam/security-credentials/role", new_token(service))
        assert json.loads(answer)["Code"] == "AssumeRoleUnauthorizedAccess"
    finally:
        service.close()


def encoded(script: str) -> str:
    return base64.b64encode(script.encode()).decode()


def test_an_instance_runs_its_user_data_in_a_home_of_its_own_until_it_shuts_itself_down(tmp_path: Path) -> None:
    host, ended = make_host(tmp_path, service="ec2"), []
    says = "pwd; echo $HOME $AWS_ENDPOINT_URL; env | grep -c SECRET; dirname $TMPDIR"
    script = f"#!/bin/bash\n{says}\nsleep 600 &\nshutdown -P now\nsleep 600\n"
    run = InstanceRun(host, LaunchedInstance("i-1", "t3.micro", "eu-west-1", encoded(script)), lambda: ended.append(1))
    run.start()
    run.join(30)
    assert ended == [1]
    home = str(tmp_path / "ec2" / "i-1" / "root")
    assert console_output(host, "i-1").decode().split() == [home, home, "http://127.0.0.1:9", "0", str(host.temporary)]
    assert not Path(home).exists()
    assert not list(host.temporary.iterdir())


def test_an_instance_that_is_ended_does_not_say_that_it_ended_itself(tmp_path: Path) -> None:
    host, ended = make_host(tmp_path, service="ec2"), []
    script = "#!/bin/bash\ntrap 'echo saved; exit' TERM\necho ready\nwhile :; do sleep 0.05; done\n"
    run = InstanceRun(host, LaunchedInstance("i-2", "t3.micro", "eu-west-1", encoded(script)), lambda: ended.append(1))
    run.start()
    eventually(lambda: b"ready" in console_output(host, "i-2"))
    run.stop()
    run.join(30)
    assert not run.alive
    assert ended == []
    assert b"saved" in console_output(host, "i-2")


def test_an_instance_that_is_ended_while_it_shuts_down_was_ended(tmp_path: Path) -> None:
    host, ended = make_host(tmp_path, service="ec2"), []
    wait = "trap 'echo stopping; while [ ! -e go ]; do sleep 0.05; done; exit' TERM"
    script = f"#!/bin/bash\n{wait}\nshutdown now\nwhile :; do sleep 0.05; done\n"
    run = InstanceRun(host, LaunchedInstance("i-4", "t3.micro", "eu-west-1", encoded(script)), lambda: ended.append(1))
    run.start()
    eventually(lambda: b"stopping" in console_output(host, "i-4"))
    run.stop()
    (tmp_path / "ec2" / "i-4" / "root" / "go").touch()
    run.join(30)
    assert not run.alive
    assert ended == []


def test_the_console_keeps_what_programs_print_after_the_user_data_has_ended(tmp_path: Path) -> None:
    host = make_host(tmp_path, service="ec2")
    script = "#!/bin/bash\n(while [ ! -e go ]; do sleep 0.05; done; echo later) &\necho first\n"
    run = InstanceRun(host, LaunchedInstance("i-5", "t3.micro", "eu-west-1", encoded(script)), lambda: None)
    run.start()
    eventually(lambda: b"user data exited" in console_output(host, "i-5"))
    (tmp_path / "ec2" / "i-5" / "root" / "go").touch()
    eventually(lambda: b"later" in console_output(host, "i-5"))
    run.stop()
    run.join(30)
    lines = console_output(host, "i-5").decode().splitlines()
    assert lines == ["first", "[local AWS] user data exited with code 0", "later"]


def test_an_instance_whose_console_has_no_space_still_shuts_down_when_it_wants_to(tmp_path: Path) -> None:
    host, ended = make_host(tmp_path, service="ec2"), []
    waiting = "while [ ! -e {0} ]; do sleep 0.05; done"
    script = f"#!/bin/bash\n({waiting.format('off')}; shutdown now) &\n{waiting.format('go')}\n"
    run = InstanceRun(host, LaunchedInstance("i-7", "t3.micro", "eu-west-1", encoded(script)), lambda: ended.append(1))
    run.start()
    root = tmp_path / "ec2" / "i-7" / "root"
    eventually((root / "user-data").exists)
    time.sleep(0.5)
    with full_disk():
        (root / "go").touch()
        time.sleep(1)
    assert run.alive
    (root / "off").touch()
    run.join(30)
    assert ended == [1]


def test_user_data_without_its_interpreter_leaves_an_instance_that_just_runs(tmp_path: Path) -> None:
    host, ended = make_host(tmp_path, service="ec2"), []
    data = encoded("#!/no/such/interpreter\n")
    run = InstanceRun(host, LaunchedInstance("i-6", "t3.micro", "eu-west-1", data), lambda: ended.append(1))
    run.start()
    eventually(lambda: b"cannot be started: No such file" in console_output(host, "i-6"))
    assert run.alive
    run.stop()
    run.join(30)
    assert ended == []


@pytest.mark.parametrize("user_data", ["", encoded("#cloud-config\n"), "%%%", base64.b64encode(b"\xff").decode()])
def test_user_data_that_is_no_script_leaves_an_instance_that_just_runs(tmp_path: Path, user_data: str) -> None:
    host = make_host(tmp_path, service="ec2")
    run = InstanceRun(host, LaunchedInstance("i-3", "t3.micro", "eu-west-1", user_data), lambda: None)
    run.start()
    eventually(lambda: b"no script" in console_output(host, "i-3"))
    assert run.alive
    run.stop()
    run.join(30)


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
