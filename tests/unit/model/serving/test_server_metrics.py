"""The server's metrics: what is counted, and a log line that CloudWatch takes for metrics."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_fixtures import image_bytes, make_artifact
from serving_process import model_server

from model.core.logs import JsonFormatter
from model.serving.metrics import ServingMetrics


def reported(metrics: ServingMetrics, caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """Return the lines of a report as CloudWatch gets them."""
    caplog.clear()
    metrics.report()
    return [json.loads(JsonFormatter().format(record)) for record in caplog.records]


def test_a_report_has_the_percentiles_the_counts_and_the_deepest_queue(caplog: pytest.LogCaptureFixture) -> None:
    metrics = ServingMetrics()
    assert reported(metrics, caplog) == []  # nothing is said of nothing
    for milliseconds in range(1, 101):
        metrics.request(200, milliseconds / 1e3)
    for depth in (1, 7, 3):
        metrics.queued(depth)
    for status in (400, 415, 406, 500, 503, 503):
        metrics.request(status, 99.0)
    metrics.worker_restarted()
    (line,) = reported(metrics, caplog)
    assert line["milliseconds"] == {"Latency": {"p50": 50.5, "p90": 90.1, "p99": 99.01}}
    counts = {"Requests": 106, "Refused": 3, "Rejected": 2, "Failed": 1, "WorkerRestarts": 1, "QueueDepth": 7}
    assert {name: line[name] for name in counts} == counts
    assert "_aws" not in line
    metrics.request(503, 0.01)
    (line,) = reported(metrics, caplog)  # every report begins anew
    assert (line["Requests"], line["Rejected"], line["QueueDepth"], line["milliseconds"]) == (1, 1, 0, {})


def test_a_running_server_logs_its_metrics_and_the_last_ones_when_it_stops(tmp_path: Path) -> None:
    environment = {
        "MODEL_SERVER_METRICS_SECONDS": "300",
        "MODEL_SERVER_METRICS_NAMESPACE": "Kennel",
        "SAGEMAKER_CONTAINER_LOG_LEVEL": "40",  # of the other lines
    }
    with model_server(make_artifact(tmp_path / "artifact"), tmp_path / "log", ready=False, **environment) as server:
        server.wait_until_ready()
        assert server.invoke(image_bytes()).status == 200
        assert server.invoke(b"hello").status == 415
        server.process.terminate()
        assert server.wait_until_gone() == 0
        (line,) = (json.loads(line) for line in server.log().splitlines() if '"Metrics"' in line)
    assert (line["Requests"], line["Refused"], line["Server"], len(line["InferenceTime"])) == (2, 1, "colours", 1)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("Kennel", [["Server"]])
    assert {"Name": "Latency", "Unit": "Milliseconds"} in directive["Metrics"]


def test_the_values_of_a_line_stand_for_all_within_cloudwatchs_limit(caplog: pytest.LogCaptureFixture) -> None:
    metrics = ServingMetrics(namespace="Kennel")
    seconds = np.random.default_rng(1).lognormal(-3, 1, 20_000)
    for value in seconds:
        metrics.request(200, value)
    (line,) = reported(metrics, caplog)
    assert len(line["Latency"]) == 100
    for measure in (np.median, np.mean, lambda values: np.percentile(values, 99)):
        assert measure(line["Latency"]) == pytest.approx(measure(seconds) * 1e3, rel=0.05)
