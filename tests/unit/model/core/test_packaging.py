"""Packaging: a whole, deterministic archive of the model and this checkout's program; a damaged model is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from serving_fixtures import make_artifact

import model
from model.core import packaging
from model.core.artifact import ArtifactError, ModelCard
from model.core.packaging import MODEL_FILES, package


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = make_artifact(tmp_path / "artifact")
    packaging.write_metrics(folder, {"valid": {"accuracy": 0.5}, "skipped": "caf\udce9.png"})
    return folder


@pytest.fixture
def tarball(artifact: Path, tmp_path: Path) -> Path:
    package(artifact, tmp_path / "model.tar.gz")
    return tmp_path / "model.tar.gz"


def test_a_file_name_that_is_no_text_is_written_and_read_as_it_is(artifact: Path) -> None:
    assert json.loads((artifact / packaging.METRICS_FILE).read_text(encoding="utf-8"))["skipped"] == "caf\udce9.png"


def test_the_archive_holds_the_model_and_the_program_of_this_checkout_and_nothing_else(
    artifact: Path, tarball: Path, tmp_path: Path
) -> None:
    (artifact / "notes.txt").write_text("private")
    (artifact / "code" / "model").mkdir(parents=True)
    (artifact / "code" / "left_over.py").write_text("an old one")
    package(artifact, tmp_path / "new.tar.gz")
    assert (tmp_path / "new.tar.gz").read_bytes() == tarball.read_bytes()
    with tarfile.open(tarball) as tar:
        modes = {member.name: member.mode for member in tar}
    room = Path(model.__file__).parent
    program = {
        f"code/model/{path.relative_to(room)}" for name in ("core", "serving") for path in (room / name).glob("*.py")
    }
    assert modes.keys() == {*MODEL_FILES, "code/serve", "code/model/__init__.py", *program}
    assert modes.pop("code/serve") == 0o755
    assert set(modes.values()) == {0o644}


def test_the_packaged_program_is_complete(tarball: Path, tmp_path: Path) -> None:
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


def test_the_serving_program_imports_nothing_of_the_training() -> None:
    for name in packaging.SERVING_PACKAGES:
        for module in (Path(model.__file__).parent / name).glob("*.py"):
            assert "training" not in " ".join(re.findall(r"^\s*from (\.\S+)", module.read_text(), re.MULTILINE)), module


def test_the_same_model_gives_the_same_bytes(artifact: Path, tarball: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    for path in copy.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    previous = os.umask(0o077)
    try:
        package(copy, tmp_path / "another name.tar.gz")
    finally:
        os.umask(previous)
    content = tarball.read_bytes()
    assert (tmp_path / "another name.tar.gz").read_bytes() == content
    assert package(tarball, tarball) == ModelCard.load(artifact)  # a package packaged again, in its own place
    assert tarball.read_bytes() == content


def test_archives_of_other_programs_are_read(artifact: Path, tarball: Path, tmp_path: Path) -> None:
    # As `tar -czf` and SageMaker write them: "./" in front, folders, owners.
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as tar:
        tar.add(artifact, ".")
    package(tmp_path / "other.tar.gz", tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == tarball.read_bytes()


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
def test_a_damaged_archive_is_one_message_and_leaves_the_destination_alone(
    tarball: Path, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    damage(tarball)
    destination = tmp_path / "deployed.tar.gz"
    destination.write_bytes(b"the model that is there")
    with pytest.raises(ArtifactError, match=r"model\.tar\.gz"):
        package(tarball, destination)
    assert destination.read_bytes() == b"the model that is there"
    assert {path.name for path in tmp_path.iterdir()} <= {"artifact", "model.tar.gz", "deployed.tar.gz"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.json").unlink(), r"no model\.json"),
        (lambda folder: (folder / "model.onnx").unlink(), r"no model\.onnx"),
        (lambda folder: damage_middle(folder / "model.onnx"), "damaged or belongs to another model"),
    ],
)
def test_a_damaged_model_is_named_with_the_file_that_was_given(
    artifact: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(artifact)
    with tarfile.open(tmp_path / "broken.tar.gz", "w:gz") as tar:
        tar.add(artifact, ".")
    for source in (artifact, tmp_path / "broken.tar.gz"):
        with pytest.raises(ArtifactError, match=message) as error:
            package(source, tmp_path / "model.tar.gz")
        assert source.name in str(error.value)
        assert not (tmp_path / "model.tar.gz").exists()


def test_an_unfinished_archive_is_never_in_place(
    artifact: Path, tarball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tarball.read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full_disk)
    with pytest.raises(OSError, match="No space left"):
        package(artifact, tarball)
    assert tarball.read_bytes() == content
    assert {path.name for path in tmp_path.iterdir()} == {"artifact", "model.tar.gz"}
