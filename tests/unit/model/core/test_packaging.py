from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from serving_fixtures import make_artifact

import model
from model.core import packaging
from model.core.artifact import ArtifactError, ModelCard
from model.core.packaging import MODEL_FILES, archive, package, verify_artifact


@pytest.fixture
def artifact(tmp_path):
    folder = make_artifact(tmp_path / "artifact") or tmp_path / "artifact"
    packaging.write_metrics(folder, {"valid": {"accuracy": 0.5}, "skipped": "caf\udce9.png"})
    return folder


@pytest.fixture
def tarball(artifact, tmp_path):
    package(artifact, tmp_path / "model.tar.gz")
    return tmp_path / "model.tar.gz"


def members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return {member.name: member for member in tar}


def test_the_archive_holds_the_model_and_the_program_and_nothing_else(artifact, tarball):
    (artifact / "notes.txt").write_text("private")
    package(artifact, tarball)
    names = members(tarball)
    assert set(MODEL_FILES) | {"code/serve"} <= names.keys()
    assert {"code/model/serving/server.py", "code/model/core/predictor.py", "code/model/__init__.py"} <= names.keys()
    assert not any("train" in name or "notes" in name or "pycache" in name for name in names)
    assert names["code/serve"].mode == 0o755
    assert names["code/model/serving/server.py"].mode == 0o644


def test_a_file_name_that_is_no_text_is_written_and_read_as_it_is(artifact):
    assert json.loads((artifact / packaging.METRICS_FILE).read_text(encoding="utf-8"))["skipped"] == "caf\udce9.png"


def test_the_packaged_program_is_complete(tarball, tmp_path):
    # Only the archive's own code is on the path; torch is cut off, as in a container that has ONNX Runtime alone.
    with tarfile.open(tarball) as tar:
        tar.extractall(tmp_path / "unpacked")
    program = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None; sys.path.insert(0, 'code'); "
        "import model.serving.server, model.serving.worker, model.core.predictor, pathlib; "
        "assert pathlib.Path(model.serving.server.__file__).is_relative_to(pathlib.Path.cwd()); "
        "model.core.predictor.Predictor.load(pathlib.Path('.'))"
    )
    subprocess.run([sys.executable, "-P", "-c", program], cwd=tmp_path / "unpacked", check=True)


def test_the_serving_program_imports_nothing_of_the_training():
    for name in packaging.SERVING_PACKAGES:
        for module in (Path(model.__file__).parent / name).glob("*.py"):
            assert "training" not in " ".join(re.findall(r"^\s*from (\.\S+)", module.read_text(), re.MULTILINE)), module


def test_the_same_model_gives_the_same_bytes(artifact, tmp_path):
    package(artifact, tmp_path / "one.tar.gz")
    copy = shutil.copytree(artifact, tmp_path / "copy")
    for path in copy.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    previous = os.umask(0o077)
    try:
        package(copy, tmp_path / "another name.tar.gz")
    finally:
        os.umask(previous)
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "another name.tar.gz").read_bytes()


def test_packaging_a_package_again_changes_nothing(tarball, tmp_path):
    card = package(tarball, tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == tarball.read_bytes()
    content = tarball.read_bytes()
    assert package(tarball, tarball) == card
    assert tarball.read_bytes() == content


def test_the_serving_program_is_that_of_this_checkout(artifact, tarball, tmp_path):
    (artifact / "code" / "model").mkdir(parents=True, exist_ok=True)
    (artifact / "code" / "model" / "server.py").write_text("an old one")
    (artifact / "code" / "left_over.py").write_text("an old one")
    package(artifact, tmp_path / "new.tar.gz")
    assert (tmp_path / "new.tar.gz").read_bytes() == tarball.read_bytes()


def test_the_program_in_a_training_jobs_folder_is_replaced(artifact):
    packaging.add_serving_program(artifact)
    (artifact / "code" / "left_over.py").write_text("an old one")
    packaging.add_serving_program(artifact)
    assert not (artifact / "code" / "left_over.py").exists()
    assert os.access(artifact / "code" / "serve", os.X_OK)


def test_an_intact_artifact_is_verified_as_folder_and_as_archive(artifact, tarball):
    assert verify_artifact(artifact) == verify_artifact(tarball) == ModelCard.load(artifact)


def test_archives_of_other_programs_are_read(artifact, tmp_path):
    # As `tar -czf` and SageMaker write them: "./" in front, folders, owners.
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(artifact, ".")
    assert verify_artifact(tmp_path / "model.tar.gz") == ModelCard.load(artifact)


def damage_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"PK\x03\x04 no tar"),
        lambda path: path.write_bytes(path.read_bytes()[:1500]),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:-8] + bytes(4) + path.read_bytes()[-4:]),
        damage_middle,
        Path.unlink,
    ],
    ids=["empty", "not a tar", "cut early", "cut late", "wrong checksum", "flipped bits", "missing"],
)
def test_a_damaged_archive_is_one_message_and_leaves_the_destination_alone(tarball, tmp_path, damage):
    damage(tarball)
    destination = tmp_path / "deployed.tar.gz"
    destination.write_bytes(b"the model that is there")
    for refuse in (lambda: verify_artifact(tarball), lambda: package(tarball, destination)):
        with pytest.raises(ArtifactError, match=r"model\.tar\.gz"):
            refuse()
    assert destination.read_bytes() == b"the model that is there"
    assert {path.name for path in tmp_path.iterdir()} <= {"artifact", "model.tar.gz", "deployed.tar.gz"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), r"no model\.json"),
        (lambda folder: (folder / "model.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "model.onnx").unlink(), r"no model\.onnx"),
        (lambda folder: (folder / "weights.pt").unlink(), r"no weights\.pt"),
        (lambda folder: damage_middle(folder / "model.onnx"), "damaged or belongs to another model"),
    ],
)
def test_a_damaged_model_is_named_with_the_file_that_was_given(artifact, tmp_path, damage, message):
    damage(artifact)
    with tarfile.open(tmp_path / "broken.tar.gz", "w:gz") as tar:
        tar.add(artifact, ".")
    with pytest.raises(ArtifactError, match=message):
        package(artifact, tmp_path / "model.tar.gz")
    with pytest.raises(ArtifactError, match=message) as error:
        package(tmp_path / "broken.tar.gz", tmp_path / "model.tar.gz")
    assert "broken.tar.gz" in str(error.value)
    assert "artifact-" not in str(error.value)
    assert not (tmp_path / "model.tar.gz").exists()


def test_an_unfinished_archive_is_never_in_place(artifact, tmp_path, monkeypatch):
    destination = tmp_path / "out" / "model.tar.gz"
    package(artifact, destination)
    content = destination.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full_disk)
    with pytest.raises(OSError, match="No space left"):
        archive(artifact, destination)
    assert destination.read_bytes() == content
    assert [path.name for path in destination.parent.iterdir()] == ["model.tar.gz"]
