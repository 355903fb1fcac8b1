"""Starting a training job: what is sent to SageMaker, and what is refused before anything is sent."""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from cli.aws import ROOT
from cli.errors import UsageError
from cli.training.hyperparameters import chosen, encode, parse_hyperparameters
from cli.training.sagemaker import SOURCE_DIR, _code_revision, saved_by_spot, source_bundle


def test_hyperparameters_are_name_equals_value() -> None:
    assert parse_hyperparameters(["lr=0.01", "batch_size=64", "weight-decay=", "architecture=a=b"]) == {
        "lr": "0.01",
        "batch-size": "64",
        "weight-decay": "",
        "architecture": "a=b",
    }


@pytest.mark.parametrize("bad", ["lr", "=1", "LR=1", "--lr=1", "a b=1"])
def test_other_forms_are_refused(bad: str) -> None:
    with pytest.raises(UsageError, match="is not NAME=VALUE"):
        parse_hyperparameters([bad])


def test_what_somebody_chose_comes_back_from_sagemaker_as_it_was() -> None:
    given = {
        "lr": "0.01",
        "epochs": "7",
        "name": "true",
        "odd": 'a "quoted" ü',
        "code-revision": "1",
        "model-name": "x",
    }
    held = {**encode({**given, "sagemaker_program": "train.py", "sagemaker_log_level": 20}), "batch_size": "64"}
    held["_tuning_objective_metric"] = "valid:loss"
    expected = {name: value for name, value in given.items() if name not in ("code-revision", "model-name")}
    assert chosen(held) == {**expected, "batch-size": "64"}


def test_what_spot_capacity_saved_is_said_where_sagemaker_says_it() -> None:
    ended = {"TrainingTimeInSeconds": 200, "BillableTimeInSeconds": 60}
    assert "60 s are billed: spot capacity saved 70%" in saved_by_spot({**ended, "EnableManagedSpotTraining": True})
    assert saved_by_spot({**ended, "EnableManagedSpotTraining": False}) == ""
    assert saved_by_spot({"EnableManagedSpotTraining": True, "TrainingTimeInSeconds": 200}) == ""


def test_a_training_needs_no_git_to_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # a fresh machine, with an unpacked copy of the project
    assert _code_revision() == "unknown"


def test_the_bundle_holds_the_training_program_at_its_root() -> None:
    with tarfile.open(fileobj=io.BytesIO(source_bundle(SOURCE_DIR))) as bundle:
        names = bundle.getnames()
    assert "train.py" in names
    assert "requirements.txt" in names
    assert not any("__pycache__" in name for name in names)


def test_the_documentation_makes_a_source_dir_of_the_same_files(tmp_path: Path) -> None:
    (command,) = re.findall(r"^mkdir .*build/source$", (ROOT / "docs" / "local-aws-sdk.md").read_text(), re.MULTILINE)
    subprocess.run(command.replace("build/source", str(tmp_path / "source")), shell=True, cwd=ROOT, check=True)
    with tarfile.open(fileobj=io.BytesIO(source_bundle(SOURCE_DIR))) as bundle:
        files = {member.name: bundle.extractfile(member).read() for member in bundle if member.isfile()}
    assert {name: (tmp_path / "source" / name).read_bytes() for name in files} == files


def test_the_same_files_give_the_same_bundle_whenever_and_wherever_they_lie(tmp_path: Path) -> None:
    for position, name in enumerate(("one", "two")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train.py").write_text("print()")
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / f"{name}.pyc").write_text(name)
        os.utime(folder / "train.py", (position, position))
    assert source_bundle(tmp_path / "one") == source_bundle(tmp_path / "two")
    (tmp_path / "two" / "train.py").write_text("print(1)")
    assert source_bundle(tmp_path / "one") != source_bundle(tmp_path / "two")
