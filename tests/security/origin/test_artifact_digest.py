"""A model artifact that is not the deployed one: nothing of it may run."""

import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from model.core.archives import archive_digest, write_archive
from model.core.artifact_digest import DigestError, folder_digest
from model.core.packaging import add_serving_program

MODEL = Path(__file__).resolve().parents[3] / "model"


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A folder with the real serving program, and no model: the digest must be checked before that is noticed."""
    folder = tmp_path / "artifact"
    folder.mkdir()
    add_serving_program(folder)
    (folder / "weights.pt").write_bytes(bytes(1000))
    return folder


@pytest.fixture
def serve(artifact: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the image's command, installed as the Dockerfile does, on the artifact."""
    installed = tmp_path / "bin"
    installed.mkdir()
    for name in ("serving/image/serve", "core/artifact_digest.py"):
        shutil.copy(MODEL / name, installed)

    def run(digest: str, program: Path = installed / "serve") -> subprocess.CompletedProcess[str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {"PATH": path, "SM_MODEL_DIR": str(artifact), "MODEL_ARTIFACT_DIGEST": digest}
        environment |= {"SAGEMAKER_BIND_TO_HOST": "127.0.0.1", "PYTHONSAFEPATH": ""}
        return subprocess.run(
            [program], env=environment, cwd=artifact, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def change_weights(folder: Path) -> None:
    (folder / "weights.pt").write_bytes(bytes(999) + b"1")


def divide_in_another_way(folder: Path) -> None:
    (folder / "weights.pt").write_bytes(bytes(500))
    (folder / "weights.pt2").write_bytes(bytes(500))


def link_away(path: Path, elsewhere: Path) -> None:
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


CHANGES: dict[str, Callable[[Path], object]] = {
    "other weights": change_weights,
    "a module more": lambda folder: (folder / "code" / "starlette.py").write_text("print('ran')"),
    "bytecode": lambda folder: (folder / "code" / "model" / "server.cpython-311.pyc").write_bytes(b"any"),
    "a file less": lambda folder: (folder / "weights.pt").unlink(),
    "another name": lambda folder: (folder / "weights.pt").rename(folder / "weights"),
    "same bytes in other files": divide_in_another_way,
    "linked file": lambda folder: link_away(folder / "weights.pt", folder.parent / "elsewhere"),
    "linked folder": lambda folder: link_away(folder / "code", folder.parent / "code"),
    "pipe": lambda folder: os.mkfifo(folder / "pipe"),
}


def test_deployed_artifact_passes_and_its_program_runs(artifact, serve):
    (artifact / "code" / "serve").write_text("import os, sys\nprint(os.getppid(), sorted(os.environ))\nsys.exit(7)")
    (artifact / "code" / "serve").chmod(0o644)  # SageMaker's unpacking need not keep the permission to execute
    done = serve(folder_digest(artifact))
    assert done.returncode == 7, done.stderr
    assert done.stdout.split()[0] == str(os.getpid())  # in the command's own process, which gets the signal to stop
    assert "MODEL_ARTIFACT_DIGEST" not in done.stdout  # else the program would check it again


@pytest.mark.parametrize("change", CHANGES)
def test_image_runs_nothing_of_another_artifact_and_says_what_it_found(artifact, serve, change):
    (artifact / "code" / "serve").write_text("print('ran')")
    expected = folder_digest(artifact)
    CHANGES[change](artifact)
    done = serve(expected)
    assert (done.returncode, done.stdout) == (1, "")
    if "link" in change or change == "pipe":
        assert "holds files only" in done.stderr
    else:
        assert expected in done.stderr and folder_digest(artifact) in done.stderr


def test_container_does_not_run_as_root_and_onnx_runtime_reports_to_nobody():
    dockerfile = (MODEL / "serving" / "image" / "Dockerfile").read_text(encoding="utf-8")
    assert "\nUSER 10001:10001\n" in dockerfile
    assert "ORT_DISABLE_TELEMETRY=1" in dockerfile


def test_server_without_our_image_checks_the_digest_too_and_leaves_it_as_it_was(artifact, serve):
    """The local AWS runs no images: it starts the artifact's own program."""
    expected = folder_digest(artifact)
    assert "There is no model.json" in serve(expected, artifact / "code" / "serve").stderr  # so it came past the digest
    assert folder_digest(artifact) == expected
    change_weights(artifact)
    done = serve(expected, artifact / "code" / "serve")
    assert done.returncode == 1
    assert f"its digest is {folder_digest(artifact)}, MODEL_ARTIFACT_DIGEST is {expected}" in done.stderr


def test_digest_of_an_archive_is_that_of_the_folder_unpacked_from_it(artifact, tmp_path):
    (artifact / "empty").mkdir()
    with (tmp_path / "ours.tar.gz").open("wb") as file:
        write_archive(artifact, file)
    with tarfile.open(tmp_path / "theirs.tar.gz", "w:gz") as tar:
        tar.add(artifact, ".")
    found = folder_digest(artifact)
    assert found == archive_digest(tmp_path / "ours.tar.gz") == archive_digest(tmp_path / "theirs.tar.gz")


def test_digest_is_what_coreutils_say(artifact):
    for name in ("a b", "a-z", "ä", "code/z", "Code"):
        (artifact / name).write_text(name)
    command = r"find . -type f -printf '%P\n' | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum"
    done = subprocess.run(["sh", "-c", command], cwd=artifact, capture_output=True, text=True, check=True)
    assert folder_digest(artifact) == f"sha256:{done.stdout.split()[0]}"


@pytest.mark.parametrize("name", ["a\nb", "a\\\\b", b"a\xffb"])
def test_names_that_could_stand_for_several_files_have_no_digest(artifact, name):
    (artifact / os.fsdecode(name)).write_bytes(b"")
    with pytest.raises(DigestError, match="characters that a model artifact may not use"):
        folder_digest(artifact)
