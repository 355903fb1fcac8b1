"""The environment's settings: documented defaults, every fault at once, and the container's share of the machine."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from pathlib import Path

import pytest

from model.core import machine
from model.core.logs import JsonFormatter
from model.core.machine import available_vcpus
from model.serving import settings as serving_settings
from model.serving.settings import ServingSettings, SettingsError


def test_defaults_are_sagemakers() -> None:
    settings = ServingSettings.from_environment({})
    assert settings == ServingSettings.from_environment(dict.fromkeys(["SM_MODEL_DIR", "MODEL_SERVER_ENGINE"], ""))
    assert (settings.model_dir, settings.host, settings.port) == (Path("/opt/ml/model"), "0.0.0.0", 8080)
    assert (settings.mode, settings.workers, settings.threads) == ("throughput", available_vcpus(), 1)
    assert settings.lone_threads == available_vcpus()
    assert (settings.metrics_seconds, settings.metrics_namespace) == (60, None)
    assert settings.max_body_bytes == 6 * 1024 * 1024
    assert settings.engine is None


VARIABLES: dict[str, tuple[str, str, object]] = {
    "SM_MODEL_DIR": ("/models/a", "model_dir", Path("/models/a")),
    "MODEL_ARTIFACT_DIGEST": ("sha256:0", "artifact_digest", "sha256:0"),
    "SAGEMAKER_BIND_TO_HOST": ("127.0.0.1", "host", "127.0.0.1"),
    "SAGEMAKER_BIND_TO_PORT": ("1234", "port", 1234),
    "MODEL_SERVER_MODE": ("throughput", "mode", "throughput"),
    "SAGEMAKER_MODEL_SERVER_WORKERS": ("3", "workers", 3),
    "MODEL_SERVER_LONE_THREADS": ("2", "lone_threads", 2),
    "SAGEMAKER_MODEL_SERVER_TIMEOUT": ("7", "timeout_seconds", 7),
    "SAGEMAKER_CONTAINER_LOG_LEVEL": ("40", "log_level", 40),
    "MODEL_SERVER_ENGINE": ("torch", "engine", "torch"),
    "MODEL_SERVER_MAX_BODY_BYTES": ("2048", "max_body_bytes", 2048),
    "MODEL_SERVER_MAX_PIXELS": ("99", "max_pixels", 99),
    "MODEL_SERVER_DECODE_SECONDS": ("4", "decode_seconds", 4),
    "MODEL_SERVER_MAX_IMAGES": ("8", "max_images", 8),
    "MODEL_SERVER_MAX_REQUESTS": ("5", "max_requests", 5),
    "MODEL_SERVER_DRAIN_SECONDS": ("9", "drain_seconds", 9),
    "MODEL_SERVER_METRICS_SECONDS": ("10", "metrics_seconds", 10),
    "MODEL_SERVER_METRICS_NAMESPACE": ("Kennel", "metrics_namespace", "Kennel"),
    "MODEL_SERVER_METRICS_SERVER": ("main", "metrics_server", "main"),
}


def test_every_variable_is_read() -> None:
    settings = ServingSettings.from_environment({name: text for name, (text, _, _) in VARIABLES.items()})
    expected = {field: value for _, field, value in VARIABLES.values()}
    assert dataclasses.asdict(settings) == expected | {"threads": 1}


def test_latency_takes_one_worker_with_all_vcpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_settings, "available_vcpus", lambda: 4)
    for given in ({}, {"SAGEMAKER_MODEL_SERVER_WORKERS": "1"}):
        settings = ServingSettings.from_environment({"MODEL_SERVER_MODE": "latency"} | given)
        assert (settings.workers, settings.threads, settings.max_requests) == (1, 4, 64)
        assert settings.lone_threads == 4
    with pytest.raises(SettingsError, match="'2'; with MODEL_SERVER_MODE=latency there is one worker"):
        ServingSettings.from_environment({"MODEL_SERVER_MODE": "latency", "SAGEMAKER_MODEL_SERVER_WORKERS": "2"})
    with pytest.raises(SettingsError, match="MODEL_SERVER_MODE is 'fast'; it must be one of throughput, latency"):
        ServingSettings.from_environment({"MODEL_SERVER_MODE": "fast"})


def test_a_batch_jobs_metrics_are_not_mixed_with_the_endpoints() -> None:
    environment = {"MODEL_SERVER_METRICS_NAMESPACE": "Kennel", "SAGEMAKER_BATCH": "true"}
    assert ServingSettings.from_environment(environment).metrics_namespace is None


def test_all_faults_are_named_at_once_with_what_is_allowed() -> None:
    with pytest.raises(SettingsError) as caught:
        ServingSettings.from_environment(
            {"SAGEMAKER_BIND_TO_PORT": "http", "SAGEMAKER_MODEL_SERVER_WORKERS": "0", "MODEL_SERVER_ENGINE": "tpu"}
        )
    message = str(caught.value)
    assert "SAGEMAKER_BIND_TO_PORT is 'http'; it must be a whole number from 1 to 65535" in message
    assert "SAGEMAKER_MODEL_SERVER_WORKERS is '0'" in message
    assert "MODEL_SERVER_ENGINE is 'tpu'; it must be one of onnx, torch" in message


@pytest.mark.parametrize(
    ("files", "affinity", "expected"),
    [
        ({"_CGROUP_V2_LIMIT": "max 100000"}, 64, 64),
        ({"_CGROUP_V2_LIMIT": "200000 100000"}, 64, 2),
        ({"_CGROUP_V2_LIMIT": "150000 100000"}, 64, 2),
        ({"_CGROUP_V2_LIMIT": "10000 100000"}, 64, 1),
        ({"_CGROUP_V2_LIMIT": "garbage"}, 64, 64),
        ({"_CGROUP_V1_QUOTA": "-1", "_CGROUP_V1_PERIOD": "100000"}, 64, 64),
        ({"_CGROUP_V1_QUOTA": "300000", "_CGROUP_V1_PERIOD": "100000"}, 64, 3),
        ({}, 1, 1),
    ],
)
def test_workers_follow_the_quota_of_the_cgroup_and_the_affinity(
    files: dict[str, str], affinity: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_CGROUP_V2_LIMIT", "_CGROUP_V1_QUOTA", "_CGROUP_V1_PERIOD"):
        monkeypatch.setattr(machine, name, tmp_path / name)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    assert available_vcpus() == expected


def test_a_log_record_is_one_line_of_json_with_its_extras_and_its_exception() -> None:
    try:
        raise ValueError("line one\nline two")
    except ValueError:
        record = logging.getLogger("x").makeRecord(
            "x", logging.ERROR, __file__, 1, "failed %d times", (3,), sys.exc_info(), extra={"path": Path("/a"), "n": 1}
        )
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert entry["message"] == "failed 3 times"
    assert (entry["level"], entry["logger"], entry["n"], entry["path"]) == ("ERROR", "x", 1, "/a")
    assert "ValueError: line one" in entry["exception"]
    assert entry.keys() == {"timestamp", "level", "logger", "message", "process", "path", "n", "exception"}
