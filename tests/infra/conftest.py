"""Synthesised stages: every stage once per session, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import templates
from aws_cdk import App
from templates import SynthesisedStage, write_artifact

from infra import application
from infra.settings import Settings, load

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
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("artifact") / "model.tar.gz", b"a model")
