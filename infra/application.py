"""Settings in, cloud assembly out."""

from pathlib import Path
from typing import Any

from aws_cdk import App, Environment, PermissionsBoundary, Tags

from infra.gate import compliance
from infra.settings import Settings
from infra.stacks.inference import InferenceStack
from infra.stacks.storage import StorageStack
from infra.stacks.training import TrainingStack


def synthesise(app: App, settings: Settings, artifact: Path) -> Path:
    """Add the stacks of a stage to the app, synthesise them, run the security gate, and return the assembly's folder.

    The model artifact is relative to the project's root. While there is none, the inference stack can be synthesised
    and checked, but not deployed. A ComplianceError names exceptions that are not in order, and warnings; findings that
    nobody acknowledged are reported by the CDK itself.
    """
    # Without account and region the templates hold for any; nothing is looked up either way.
    common: dict[str, Any] = {
        "settings": settings,
        "env": Environment(account=settings.account, region=settings.region),
        "permissions_boundary": _boundary(settings.security.permissions_boundary) if settings.security else None,
    }
    storage = StorageStack(app, settings.stack_name("storage"), **common)
    TrainingStack(app, settings.stack_name("training"), data=storage.data, **common)
    InferenceStack(
        app, settings.stack_name("inference"), data=storage.data, images=storage.images, artifact=artifact, **common
    )
    Tags.of(app).add("project", settings.project)
    Tags.of(app).add("stage", settings.stage)
    compliance.add_checks(app, settings.gate)
    assembly = Path(app.synth().directory)
    compliance.require_order(app, assembly)
    return assembly


def _boundary(policy: str) -> PermissionsBoundary:
    """The boundary of every role of a stack, those that the CDK itself makes too."""
    return (PermissionsBoundary.from_arn if policy.startswith("arn:") else PermissionsBoundary.from_name)(policy)
