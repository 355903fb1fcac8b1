"""Synthesised stages: every stage once per session, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import templates
from aws_cdk import App
from templates import SynthesisedStage, write_artifact

from infra import application
from infra.settings import NotebookSettings, Settings, load
from infra.tables.alarms import AlarmSettings, DriftSettings
from infra.tables.serving import CaptureSettings, EndpointScalingSettings, InstanceSchedule, RolloutSettings

Synthesise = Callable[..., SynthesisedStage]


@pytest.fixture(scope="session")
def make_app(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], App]:
    """Make apps, each into a folder of its own."""
    return lambda: templates.make_app(tmp_path_factory.mktemp("assembly"))


@pytest.fixture(scope="session")
def synthesise(make_app: Callable[[], App]) -> Synthesise:
    def make(settings: Settings, artifact: Path = Path("does-not-exist.tar.gz")) -> SynthesisedStage:
        return SynthesisedStage(settings, application.synthesise(make_app(), settings, artifact))

    return make


@pytest.fixture(scope="session")
def stages(synthesise: Synthesise) -> dict[str, SynthesisedStage]:
    """The stages as they are in the repository, without a model artifact."""
    return {name: synthesise(load(name)) for name in ("local", "dev", "prod", "serverless")}


@pytest.fixture(params=["local", "dev", "prod"])
def stage(request: pytest.FixtureRequest, stages: dict[str, SynthesisedStage]) -> SynthesisedStage:
    """Each stage with instances in turn: what is promised holds for all of them."""
    return stages[request.param]


@pytest.fixture(scope="session")
def full(synthesise: Synthesise, stages: dict[str, SynthesisedStage]) -> SynthesisedStage:
    """A production that has what no stage of the repository has."""
    limits = {"min_instances": 4, "max_instances": 9}
    morning = InstanceSchedule(name="morning", cron="0 7 ? * MON-FRI *", timezone="Europe/Berlin", **limits)
    limits = {"min_instances": 2, "max_instances": 8, "metric": "concurrency", "concurrent_requests_per_instance": 6}
    scaling = EndpointScalingSettings(**limits, max_rps_per_instance=20, schedules=(morning,))
    rollout = RolloutSettings(strategy="linear", percent=25, wait_seconds=600, bake_seconds=60)
    capture = CaptureSettings(sampling_percent=5, days=9)
    prod = stages["prod"].settings
    serving = replace(prod.serving, scaling=scaling, rollout=rollout, capture=capture)
    alarms, drift = AlarmSettings(email="a@example.org"), DriftSettings()
    notebook = NotebookSettings(subnet_id="subnet-0123456789abcdef0", security_group_ids=("sg-0123456789abcdef0",))
    return synthesise(replace(prod, serving=serving, alarms=alarms, drift=drift, notebook=notebook))


@pytest.fixture(scope="session")
def with_notebook(synthesise: Synthesise) -> SynthesisedStage:
    return synthesise(replace(load("dev"), notebook=NotebookSettings(idle_minutes=45)))


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("artifact") / "model.tar.gz", b"a model")
