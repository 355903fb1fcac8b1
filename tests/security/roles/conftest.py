"""Two stages: one to attack, with every kind of role and all that it can be given, and another, serverless."""

from dataclasses import replace

import pytest
from role_table import ACCOUNT
from sagemaker_local import model_archive
from templates import SynthesisedStage, make_app

from infra.application import synthesise
from infra.container_images import ContainerImage
from infra.settings import NotebookSettings, load
from infra.tables.cost_guard import CostGuardSettings
from infra.tables.security import AuditSettings
from infra.tables.serving import CaptureSettings


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[SynthesisedStage]:
    """Both, with a server that answers anything as their artifact."""
    folder, local = tmp_path_factory.mktemp("stages"), load("local")
    image = ContainerImage(repository="pytorch", tag="1", account=ACCOUNT)
    attacked = replace(
        local,
        training=replace(local.training, image=image),
        serving=replace(local.serving, capture=CaptureSettings()),
        function=replace(local.function, source_ips=("127.0.0.1/32",), caller_requests_per_minute=5),
        notebook=NotebookSettings(),
        cost_guard=CostGuardSettings(monthly_usd=1, idle_endpoint="delete", training_hours=24, notebook_hours=24),
        audit=AuditSettings(trusted=(f"arn:aws:iam::{ACCOUNT}:user/auditor",)),
    )
    artifact = folder / "model.tar.gz"
    artifact.write_bytes(model_archive("1"))
    return [
        SynthesisedStage(settings, synthesise(make_app(folder / settings.stage), settings, artifact))
        for settings in (attacked, load("serverless"))
    ]
