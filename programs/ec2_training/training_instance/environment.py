"""Folders and variables of a training program, as SageMaker's training toolkit has them."""

from __future__ import annotations

import json
import os
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .job import Job

_HOST = "algo-1"
_PINNED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9._+!-]+)")


class Folders:
    """The folders of one training; on SageMaker they lie in ``/opt/ml``."""

    def __init__(self, root: Path) -> None:
        self.code = root / "code"
        self.input = root / "input" / "data"
        self.model = root / "model"
        self.output = root / "output"
        self.output_data = self.output / "data"
        self.checkpoints = root / "checkpoints"
        for folder in (self.code, self.input, self.model, self.output_data, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)

    def channel(self, name: str) -> Path:
        """Where an input lies."""
        return self.input / name


def variables(job: Job, folders: Folders) -> dict[str, str]:
    """The program's variables, beside those that this process has."""
    return {
        "TRAINING_JOB_NAME": job.name,
        "PYTHONUNBUFFERED": "1",
        "SM_MODEL_DIR": str(folders.model),
        "SM_OUTPUT_DIR": str(folders.output),
        "SM_OUTPUT_DATA_DIR": str(folders.output_data),
        "SM_INPUT_DIR": str(folders.input.parent),
        "SM_MODULE_DIR": str(folders.code),
        "SM_CHECKPOINT_DIR": str(folders.checkpoints),
        "SM_CHANNELS": json.dumps(sorted(job.channels)),
        **{f"SM_CHANNEL_{_variable(name)}": str(folders.channel(name)) for name in job.channels},
        "SM_HOSTS": json.dumps([_HOST]),
        "SM_CURRENT_HOST": _HOST,
        "SM_NUM_CPUS": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
        "SM_NUM_GPUS": str(len(list(Path("/dev").glob("nvidia[0-9]*")))),
        "SM_HPS": json.dumps(job.hyperparameters),
        **{f"SM_HP_{_variable(name)}": value for name, value in job.hyperparameters.items()},
    }


def missing_requirements(path: Path) -> list[str]:
    """List the requirements of a file, without hashes, that what is installed does not meet for certain."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    requirements = [re.sub(r"(^|\s+)(#|--).*", "", line).strip() for line in lines]
    return [requirement for requirement in requirements if requirement and not _installed(requirement)]


def _installed(requirement: str) -> bool:
    pinned = _PINNED.fullmatch(requirement)
    try:
        return pinned is not None and version(pinned["name"]) == pinned["version"]
    except PackageNotFoundError:
        return False


def _variable(name: str) -> str:
    return re.sub(r"\W", "_", name).upper()
