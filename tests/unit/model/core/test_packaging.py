"""The model artifact: its card, and the archive of it and this checkout's program; what is damaged is refused by name.

Hostile archives are in tests/security/hostile_input/test_unpacking.py.
"""

import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest
from serving_fixtures import make_artifact, make_card

import model
from model.core import packaging
from model.core.artifact import CARD_FILE, ONNX_FILE, ArtifactError, ModelCard, verify_files
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


def test_the_archive_holds_the_model_and_the_program_of_this_checkout_and_nothing_else(artifact, tarball, tmp_path):
    (artifact / "notes.txt").write_text("private")
    (artifact / "code" / "model").mkdir(parents=True)
    (artifact / "code" / "left_over.py").write_text("an old one")
    package(artifact, tmp_path / "new.tar.gz")
    assert (tmp_path / "new.tar.gz").read_bytes() == tarball.read_bytes()
    with tarfile.open(tarball) as tar:
        modes = {member.name: member.mode for member in tar}
    room = Path(model.__file__).parent
    program = {
        f"code/model/{path.relative_to(room)}" for name in ("core", "serving") for path in (room / name).rglob("*.py")
    }
    assert modes.keys() == {*MODEL_FILES, "code/serve", "code/model/__init__.py", *program}
    assert modes.pop("code/serve") == 0o755
    assert set(modes.values()) == {0o644}


def test_the_same_model_gives_the_same_bytes(artifact: Path, tarball: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(artifact, tmp_path / "copy")
    for path in copy.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    # As `tar -czf` and SageMaker write them: "./" in front, folders, owners.
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz") as tar:
        tar.add(copy, ".")
    content = tarball.read_bytes()
    previous = os.umask(0o077)
    try:
        for source in (copy, tmp_path / "other.tar.gz"):
            package(source, tmp_path / "another name.tar.gz")
            assert (tmp_path / "another name.tar.gz").read_bytes() == content
    finally:
        os.umask(previous)
    assert package(tarball, tarball) == ModelCard.load(artifact)  # a package packaged again, in its own place
    assert tarball.read_bytes() == content


@pytest.mark.parametrize(
    "damaged",
    [
        lambda content: content[:1500],
        lambda content: content[:-8] + bytes(4) + content[-4:],  # a wrong checksum
    ],
)
def test_a_damaged_archive_is_one_message_and_leaves_the_destination_alone(tarball, tmp_path, damaged):
    tarball.write_bytes(damaged(tarball.read_bytes()))
    destination = tmp_path / "deployed.tar.gz"
    destination.write_bytes(b"the model that is there")
    with pytest.raises(ArtifactError, match=r"model\.tar\.gz"):
        package(tarball, destination)
    assert destination.read_bytes() == b"the model that is there"
    assert {path.name for path in tmp_path.iterdir()} == {"artifact", "model.tar.gz", "deployed.tar.gz"}


@pytest.mark.parametrize("name", ["model.json", "model.onnx"])
def test_an_incomplete_model_is_named_with_the_file_that_was_given(artifact: Path, tmp_path: Path, name: str) -> None:
    (artifact / name).unlink()
    with tarfile.open(tmp_path / "broken.tar.gz", "w:gz") as tar:
        tar.add(artifact, ".")
    for source in (artifact, tmp_path / "broken.tar.gz"):
        with pytest.raises(ArtifactError, match=f"no {name}") as error:
            package(source, tmp_path / "model.tar.gz")
        assert source.name in str(error.value)
        assert not (tmp_path / "model.tar.gz").exists()


def test_a_graph_that_cannot_be_read_is_named(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("model.core.artifact.file_version", broken)
    with pytest.raises(ArtifactError, match=r"model\.onnx cannot be read: Input/output error"):
        package(artifact, tmp_path / "model.tar.gz")


def edit_card(artifact: Path, **changes: object) -> None:
    document = json.loads((artifact / CARD_FILE).read_text())
    (artifact / CARD_FILE).write_text(json.dumps(document | changes))


def test_a_saved_card_loads_as_it_was_and_gives_the_same_bytes(artifact: Path) -> None:
    card = make_card(
        artifact / ONNX_FILE, metrics={"accuracy": 0.9}, training_job="job-1", dataset={"counts": {"a": 1}}
    )
    card.save(artifact)
    first = (artifact / CARD_FILE).read_bytes()
    loaded = verify_files(artifact)
    assert loaded == card
    loaded.save(artifact)
    assert (artifact / CARD_FILE).read_bytes() == first
    assert "Grüner Hund" in first.decode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"There is no model\.json"), (b"", "not valid JSON"), (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"), (b"[]", r"holds \[\]; it must be an object"),
        (b'{"format": 2}', "format is 2; this program reads format 1"),
        (b'{"format": 1}', "name is missing; version is missing; architecture is missing"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_card_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / CARD_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match=message) as caught:
        ModelCard.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


UNUSABLE: dict[str, list[object]] = {
    "name": ["", 7, ["x"] * 100_000],
    "version": ["sha256:" + "g" * 64],
    "labels": ["abc", ["only one"], ["a", "", "b"], ["a", "a", "b"]],
    "input_size": [0, True, 64.5, 10**9],
    "mean": [[0.5, 0.5], [0.5, 0.5, "x"], [0.5, 0.5, float("nan")]],
    "std": [[0.5, 0.0, 0.5]],
    "temperature": [0, float("inf"), "1.0"],
    "interpolation": ["nearest", 2, None],
    "precision": ["fp8", ["fp32"]],
    "metrics": [None],
    "display_labels": [["a", "b"]],
    "resize_size": [1],
    "temprature": [2.0],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in UNUSABLE.items() for value in values])
def test_every_unusable_value_is_named(artifact: Path, key: str, value: object) -> None:
    edit_card(artifact, **{key: value})
    with pytest.raises(ArtifactError, match=key) as caught:
        ModelCard.load(artifact)
    assert len(str(caught.value)) < 500


def test_all_faults_are_named_at_once(artifact: Path) -> None:
    edit_card(artifact, input_size=-1, temperature=-1)
    with pytest.raises(ArtifactError, match=r"input_size is -1.*temperature is -1"):
        ModelCard.load(artifact)
