"""The world around a training: the machine, the libraries, and the file that tells SageMaker why it failed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..core.machine import available_vcpus

# By their packages' names. None is imported for its version: beside some builds of torch, torchvision fails then.
_LIBRARIES = ("torch", "torchvision", "onnxruntime", "numpy", "pillow")
# SageMaker shows this much of the failure file as the job's FailureReason.
_FAILURE_LENGTH = 1024


def describe(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return what JSON can hold of this machine and its libraries.

    `instance_type` is what SageMaker or EC2 says it is (SM_CURRENT_INSTANCE_TYPE), None elsewhere; `memory_gb` counts
    10^9 bytes.
    """
    return {
        "instance_type": environment.get("SM_CURRENT_INSTANCE_TYPE"),
        "cpu": cpu_model(),
        "vcpus": available_vcpus(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
    }


def write_failure(message: str, environment: Mapping[str, str] = os.environ) -> None:
    """Leave the reason of a failure where SageMaker looks for it, in SM_OUTPUT_DIR, if there is such a folder."""
    output = environment.get("SM_OUTPUT_DIR")
    if output and Path(output).is_dir():
        with contextlib.suppress(OSError):  # on a full disk the log has to do
            (Path(output) / "failure").write_text(message[:_FAILURE_LENGTH], "utf-8", "replace")


def cpu_model() -> str:
    """Return the processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), None)
    return model or platform.processor() or "unknown processor"
