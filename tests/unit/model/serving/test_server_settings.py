"""The environment's settings: documented defaults, and every fault at once."""

import re
from pathlib import Path

import pytest

from model.serving import settings as serving_settings
from model.serving.settings import ServingSettings, SettingsError

DOCUMENT = (Path(__file__).parents[4] / "docs" / "serving.md").read_text(encoding="utf-8")
WHOLE_NUMBERS = {"port", "workers", "timeout", "level", "bytes", "pixels", "seconds", "images", "requests", "threads"}


def read(**environment: str) -> ServingSettings:
    return ServingSettings.from_environment(environment)


def test_every_documented_variable_is_read() -> None:
    names = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", DOCUMENT.split("## Settings")[1].split("## Throughput")[0]))
    assert len(names) == 17
    special = {"MODEL_SERVER_MAX_BODY_BYTES": "2048"}
    for name in names - {"MODEL_SERVER_MODE"}:
        value = special.get(name, "13" if name.lower().split("_")[-1] in WHOLE_NUMBERS else "x")
        assert read(**{name: value}) != read(), name


def test_latency_takes_one_worker_with_all_vcpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_settings, "available_vcpus", lambda: 4)
    settings = read(MODEL_SERVER_MODE="latency", SAGEMAKER_MODEL_SERVER_WORKERS="1")
    assert (settings.workers, settings.threads, settings.lone_threads, settings.max_requests) == (1, 4, 4, 64)
    for workers in ("2", "abc"):
        with pytest.raises(SettingsError, match=f"SAGEMAKER_MODEL_SERVER_WORKERS is '{workers}'"):
            read(MODEL_SERVER_MODE="latency", SAGEMAKER_MODEL_SERVER_WORKERS=workers)


def test_a_batch_jobs_metrics_are_not_mixed_with_the_endpoints() -> None:
    assert read(MODEL_SERVER_METRICS_NAMESPACE="Kennel", SAGEMAKER_BATCH="true").metrics_namespace is None


def test_all_faults_are_named_at_once_with_what_is_allowed() -> None:
    with pytest.raises(SettingsError) as caught:
        read(SAGEMAKER_BIND_TO_PORT="http", SAGEMAKER_MODEL_SERVER_WORKERS="0", MODEL_SERVER_MODE="fast")
    message = str(caught.value)
    assert "SAGEMAKER_BIND_TO_PORT is 'http'; it must be a whole number from 1 to 65535" in message
    assert "SAGEMAKER_MODEL_SERVER_WORKERS is '0'" in message
    assert "MODEL_SERVER_MODE is 'fast'; it must be one of throughput, latency" in message
