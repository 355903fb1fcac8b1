"""What an instance runs in place of its container: a program of the artifact, or AWS's toolkit for its script."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from emulator.containers import mounts, python
from emulator.platform.awsapi import Payload
from emulator.platform.settings import ACCOUNT
from emulator.sagemaker import artifacts
from emulator.sagemaker.artifacts import ArtifactError
from emulator.sagemaker.roles import Role

_PROGRAM_PATHS = ("code/serve", "serve")
#: The contracts that the toolkit has, by the repository of the image; AWS's are in accounts of its own.
_CONTRACTS = {"pytorch-inference": "pytorch", "sagemaker-scikit-learn": "scikit_learn"}
_IMAGE = re.compile(rf"(?!{ACCOUNT})\d{{12}}\.dkr\.ecr\.[\w-]+\.amazonaws\.com(?:\.cn)?/([^:@]+)[:@].+")


class ServingContainer:
    """The container of one model, whose `directory` stands for /opt/ml; ArtifactError: it cannot be served."""

    def __init__(self, role: Role, model: Payload, directory: Path) -> None:
        self._role = role
        self._directory = directory
        self._container: Payload = model["PrimaryContainer"]
        self._given: dict[str, str] = self._container.get("Environment", {})
        self._isolated: bool = model.get("EnableNetworkIsolation", False)
        self.root = directory / "model"
        if not self.root.exists():
            _fetch(role, self._container.get("ModelDataUrl"), self.root)
        self._model = mounts.seen(directory) / "model"
        program = next((name for name in _PROGRAM_PATHS if (self.root / name).is_file()), None)
        if program and not (self.root / program).stat().st_mode & 0o100:
            raise ArtifactError(f"{program} in the artifact is not executable (chmod +x it before packing).")
        self._program = [str(self._model / program)] if program else self._toolkit()

    def _toolkit(self) -> list[str]:
        """Have the script, if it lies elsewhere; Python's arguments that serve it."""
        image = self._container["Image"]
        contract = _CONTRACTS.get(found[1]) if (found := _IMAGE.fullmatch(image)) else None
        if contract is None:
            raise ArtifactError(
                f"the artifact has no program: the local AWS runs no images, it runs {' or '.join(_PROGRAM_PATHS)} of "
                f"the artifact instead. Scripts are served as by AWS's {' and '.join(_CONTRACTS)}, not by {image}: "
                "use one of these, or pack a program that answers GET /ping and POST /invocations"
            )
        submitted, code = self._given.get("SAGEMAKER_SUBMIT_DIRECTORY", ""), self._directory / "code"
        if contract == "scikit_learn" and submitted.startswith("s3://") and not code.exists():
            if self._isolated:
                raise ArtifactError(f"its script is at {submitted}, and the container has no network.")
            _fetch(self._role, submitted, code)
        return ["-P", "-m", python.TOOLKIT, contract]

    def command(self, own: Path) -> list[str]:
        """Make the Python environment of an instance, in a folder of its own; the command that it runs."""
        interpreter = [str(python.create(own / "python"))]
        return mounts.command_in(self._directory, (interpreter if self._program[0] == "-P" else []) + self._program)

    def environment(self, own: Path) -> dict[str, str]:
        role = {} if self._isolated else self._role.environment()
        given = {name: value.replace("/opt/ml/model", str(self._model)) for name, value in self._given.items()}
        return {
            **python.environment(own / "python", own, self._isolated, role | given),
            "SM_MODEL_DIR": str(self._model),
            "SAGEMAKER_BIND_TO_HOST": "127.0.0.1",
        }


def _fetch(role: Role, url: str | None, folder: Path) -> None:
    """Fetch an archive and unpack it into a folder, which exists only when it is complete."""
    if url is None:
        raise ArtifactError("it has no ModelDataUrl, and the local AWS runs no images that bring a model")
    bucket, key = artifacts.parse_s3_url(url)
    partial = folder.with_name("partial")
    shutil.rmtree(partial, ignore_errors=True)
    archive = partial / "model.tar.gz"  # whatever the key: it may have a longer name than a file
    try:
        artifacts.fetch_all(role.client("s3"), bucket, [(key, archive.name)], partial)
        artifacts.unpack(archive, partial / "content")
        (partial / "content").replace(folder)
    except ArtifactError as error:
        raise ArtifactError(
            f"Could not access model data at {url}. Please ensure that the role {role.arn} may read the "
            f"object, and that it is what the model expects: {error}"
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
