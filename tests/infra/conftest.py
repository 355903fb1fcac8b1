"""Synthesised stages: every stage once per session, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aws_cdk import App
from templates import PROJECT, SynthesisedStage, write_artifact

from infra import application
from infra.settings import Settings, load

Synthesise = Callable[..., SynthesisedStage]


@pytest.fixture(scope="session")
def make_app(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], App]:
    """Make apps as the CDK command line does: with the context of cdk.json, each into a folder of its own."""
    context: dict[str, Any] = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]

    def make() -> App:
        return App(context=context, outdir=str(tmp_path_factory.mktemp("assembly")), analytics_reporting=False)

    return make


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
