"""The training instance's program against fakes of S3, logs and metadata: whatever happens, it says so."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from emulator_fixtures import tar_gz, untar
from fake_s3 import FakeS3
from waiting import wait_until

from emulator.ec2.metadata import MetadataService
from programs.ec2_training.training_instance import logs, metadata, program, storage
from programs.ec2_training.training_instance.job import job_key, status_key, stop_key
from programs.ec2_training.training_instance.logs import Log
from programs.ec2_training.training_instance.program import Training

JOB = "job-1"
WRITES_A_MODEL = "open('../model/model.json', 'w').write('{}')"
#: Saves a checkpoint and waits to be told to end.
WAITS = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, {handler})
open(os.environ["SM_CHECKPOINT_DIR"] + "/step", "w").write("7")
open("../model/model.json", "w").write("{{}}")
print("waiting", flush=True)
time.sleep(600)
"""
ENDS = "lambda *_: sys.exit(0)"
CHECKPOINT = f"checkpoints/{JOB}/step"


class Bucket(FakeS3):
    refuse: Callable[[str], bool] = staticmethod(lambda key: False)

    def put_object(self, *, Key: str, **request: Any) -> dict[str, str]:
        if self.refuse(Key):
            raise EndpointConnectionError(endpoint_url="https://s3")
        return super().put_object(Key=Key, **request)


class FakeLogs:
    exceptions = SimpleNamespace(ResourceNotFoundException=LookupError)

    def __init__(self) -> None:
        self.stream_is_there = self.broken = False
        self.lines: list[str] = []

    def create_log_stream(self, **_: str) -> None:
        self.stream_is_there = True

    def put_log_events(self, *, logEvents: list[dict[str, Any]], **_: str) -> None:
        if self.broken:
            raise ClientError({"Error": {"Code": "ServiceUnavailableException"}}, "PutLogEvents")
        if not self.stream_is_there:
            raise LookupError
        self.lines += [event["message"] for event in logEvents]


class Instance:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.s3, self.logs = Bucket(), FakeLogs()
        self.s3.objects["datasets/dogs/train/a/1.jpg"] = b"image"
        self.describe()
        self.program(WRITES_A_MODEL)

    def describe(self, **changes: Any) -> None:
        job = {
            "name": JOB,
            "source": "s3://bucket/code/sourcedir.tar.gz",
            "channels": {"training": "s3://bucket/datasets/dogs/"},
            "hyperparameters": {"lr": "0.1"},
            "output": f"s3://bucket/training/{JOB}",
            "checkpoints": f"s3://bucket/checkpoints/{JOB}",
            "max_runtime_seconds": 60,
        }
        self.s3.objects[job_key("code/jobs", JOB)] = json.dumps(job | changes).encode()

    def program(self, source: str) -> None:
        self.s3.objects["code/sourcedir.tar.gz"] = tar_gz({program.PROGRAM: source.encode()})

    def boot(self) -> Training:
        return Training(JOB, "bucket", self.folder, self.s3, Log(self.logs, "group", "stream"))

    def run(self) -> dict[str, Any]:
        """Train; returns the status that is left in the bucket."""
        self.boot().run()
        return self.status()

    def run_until_ended(self, handler: str, end: Callable[[], Any]) -> dict[str, Any]:
        """Train what waits, and do what ends it once its checkpoint is in the bucket."""
        self.program(WAITS.format(handler=handler))
        running = threading.Thread(target=self.boot().run)
        running.start()
        wait_until(lambda: "waiting" in self.logs.lines and CHECKPOINT in self.s3.objects)
        end()
        running.join(20)
        return self.status()

    def status(self) -> dict[str, Any]:
        return json.loads(self.s3.objects[status_key("training", JOB)])

    def archive(self, name: str) -> list[str]:
        return list(untar(self.s3.objects[f"training/{JOB}/output/{name}.tar.gz"]))


@pytest.fixture
def entries(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the instance's metadata service has."""
    found = {"instance-id": "i-1", "instance-type": "t3.xlarge"}
    monkeypatch.setattr(metadata, "entry", found.get)
    return found


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: dict[str, str]) -> Instance:
    quick = {program: ("WATCH", "_POLL"), storage: ("SYNC", "SETTLED"), logs: ("FLUSH",)}
    for module, names in quick.items():
        for name in names:
            monkeypatch.setattr(module, f"{name}_SECONDS", 0.03)
    return Instance(tmp_path / "root")


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda i: i.s3.objects.pop("datasets/dogs/train/a/1.jpg"), "no objects below s3://bucket/datasets/dogs/"),
        (lambda i: i.s3.objects.pop("code/sourcedir.tar.gz"), "sourcedir.tar.gz cannot be unpacked"),
        (lambda i: i.s3.objects.__setitem__("code/sourcedir.tar.gz", b"junk"), "cannot be unpacked"),
        (lambda i: i.s3.objects.pop(job_key("code/jobs", JOB)), "NoSuchKey"),
        (lambda i: i.describe(surprise=1), "description is not valid"),
        (lambda i: i.describe(source="/etc"), "is not an s3:// address"),
        (lambda i: i.program("import sys; sys.exit('no luck')"), r"no luck \(exit code 1\)"),
        (lambda i: i.program("open('../output/failure', 'w').write('too dark'); 1 / 0"), r"^too dark \(exit code 1\)"),
        (lambda i: i.program("import os; os.kill(os.getpid(), 9)"), "signal 9"),
        (lambda i: i.s3.objects.__setitem__("datasets/dogs/../../../x", b""), "outside of the folder"),
    ],
)
def test_whatever_goes_wrong_is_reported(instance: Instance, break_it: Callable[[Instance], Any], reason: str) -> None:
    break_it(instance)
    status = instance.run()
    assert status["state"] == "Failed"
    assert re.search(reason, status["reason"])
    assert status["ended"] >= status["started"]
    assert status["model"] is None


def test_time_that_is_used_up_ends_the_program(instance: Instance) -> None:
    instance.describe(max_runtime_seconds=0)
    instance.program("import time; time.sleep(600)")
    status = instance.run()
    assert status["state"] == "Stopped"
    assert "MaxRuntimeExceeded" in status["reason"]


def test_who_ignores_being_stopped_is_killed_and_the_model_is_kept(instance, monkeypatch):
    monkeypatch.setattr(program, "STOP_GRACE_SECONDS", 0.1)
    key = stop_key("code/jobs", JOB)
    status = instance.run_until_ended("signal.SIG_IGN", lambda: instance.s3.objects.__setitem__(key, b""))
    assert (status["state"], status["exit_code"]) == ("Stopped", -9)
    assert instance.archive("model") == ["model.json"]


def test_what_comes_after_the_programs_end_does_not_undo_it(instance: Instance) -> None:
    training = instance.boot()

    def too_late(key: str) -> bool:
        if key.endswith("model.tar.gz"):
            training.end_early("Interrupted", "while the model is uploaded")
        return False

    instance.s3.refuse = too_late
    training.run()
    assert (instance.status()["state"], instance.archive("model")) == ("Completed", ["model.json"])


def test_a_spot_instance_that_is_taken_back_leaves_its_checkpoints_and_the_next_goes_on(instance, tmp_path, entries):
    announced = ("spot/instance-action", "terminate")
    status = instance.run_until_ended(ENDS, lambda: entries.__setitem__(*announced))
    assert status["state"] == "Interrupted"
    assert instance.s3.objects[CHECKPOINT] == b"7"
    assert f"training/{JOB}/output/model.tar.gz" not in instance.s3.objects
    del entries[announced[0]]
    instance.folder = tmp_path / "next"
    instance.program(
        f"import os; {WRITES_A_MODEL}; print('step', open(os.environ['SM_CHECKPOINT_DIR'] + '/step').read())"
    )
    assert instance.run()["state"] == "Completed"
    assert "step 7" in instance.logs.lines


def test_a_call_to_s3_that_hangs_hides_no_interruption(instance, entries, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(instance.s3, "list_objects_v2", lambda **_: hangs.wait(20) and {})
    monkeypatch.setattr(program.Log, "write", lambda log, line: instance.logs.lines.append(line))

    def take_back() -> None:
        entries["spot/instance-action"] = "terminate"
        wait_until(lambda: any("Stopping: AWS takes" in line for line in instance.logs.lines))
        hangs.set()

    assert instance.run_until_ended(ENDS, take_back)["state"] == "Interrupted"


def test_neither_the_log_nor_the_status_can_stop_a_training(instance: Instance) -> None:
    instance.logs.broken = True
    instance.s3.refuse = lambda key: key.endswith("status.json")
    training = instance.boot()
    training.run()
    assert training.status.state == "Completed"


@pytest.mark.parametrize("tag", [None, "", "../x", "a" * 64, "a b", "-a"])
def test_an_instance_whose_tag_names_no_job_ends_with_a_message(monkeypatch, capsys, tmp_path, tag):
    service = MetadataService(lambda: {} if tag is None else {"tags/instance/training-job": tag}, None)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
    assert program.main(["--bucket", "b", "--log-group", "g", "--folder", str(tmp_path)]) == 1
    service.close()
    assert "tag training-job names no job" in capsys.readouterr().err


def test_an_interruption_is_an_entry_that_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    entries: dict[str, str] = {}
    service = MetadataService(lambda: entries, None)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.url)
    assert metadata.entry("spot/instance-action") is None
    entries["spot/instance-action"] = "terminate"
    assert metadata.entry("spot/instance-action") == "terminate"
    service.close()
