"""A training job as SageMaker runs it: a container's folders, and the training program in it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from cli.training.sagemaker import SOURCE_DIR, source_bundle


class Job:
    def __init__(self, root: Path, data: Path) -> None:
        self.code, self.model, self.output = root / "code", root / "model", root / "output"
        with tarfile.open(fileobj=io.BytesIO(source_bundle(SOURCE_DIR))) as bundle:
            bundle.extractall(self.code, filter="data")
        self.model.mkdir()
        (self.output / "data").mkdir(parents=True)
        self.environment = {
            "PATH": os.environ["PATH"],
            "SM_CHANNEL_TRAINING": str(data),
            "SM_MODEL_DIR": str(self.model),
            "SM_OUTPUT_DATA_DIR": str(self.output / "data"),
            "SM_OUTPUT_DIR": str(self.output),
            "SM_HOSTS": '["algo-1"]',
            "SM_NUM_CPUS": "2",
            "TRAINING_JOB_NAME": "job-1",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command, pipe = [sys.executable, "train.py", *arguments], subprocess.PIPE
        return subprocess.Popen(command, cwd=self.code, env=self.environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        output, errors = process.communicate()
        return process.returncode, output, errors

    @property
    def failure(self) -> str:
        return (self.output / "failure").read_text()

    @property
    def metrics(self) -> dict:
        return json.loads((self.output / "data" / "metrics.json").read_text())
