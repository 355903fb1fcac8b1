"""Settings in, cloud assembly out."""

from pathlib import Path

from aws_cdk import App, Environment, Tags

from infra.gate import compliance
from infra.settings import Settings
from infra.stacks.inference import InferenceStack
from infra.stacks.storage import StorageStack
from infra.stacks.training import TrainingStack


def synthesise(app: App, settings: Settings, artifact: Path) -> Path:
    """Add the stacks of a stage to the app, synthesise them and run the security gate.

    Parameters
    ----------
    artifact
        The model artifact to deploy, relative to the project's root. While there is none, the inference stack can be
        synthesised and checked, but not deployed.

    Returns
    -------
    The folder of the cloud assembly.

    Raises
    ------
    infra.gate.compliance.ComplianceError
        When an acknowledged finding does not occur. Findings that nobody acknowledged are reported by the CDK itself.
    """
    add_stacks(app, settings, artifact)
    compliance.add_checks(app)
    assembly = Path(app.synth().directory)
    compliance.require_used(app, assembly)
    return assembly


def add_stacks(app: App, settings: Settings, artifact: Path) -> None:
    """Add the stacks of a stage to the app, without the gate."""
    # Without account and region the templates hold for any; nothing is looked up either way.
    environment = Environment(account=settings.account, region=settings.region)
    storage = StorageStack(app, settings.stack_name("storage"), settings=settings, env=environment)
    TrainingStack(app, settings.stack_name("training"), settings=settings, data=storage.data, env=environment)
    InferenceStack(
        app,
        settings.stack_name("inference"),
        settings=settings,
        data=storage.data,
        images=storage.images,
        artifact=artifact,
        env=environment,
    )
    Tags.of(app).add("project", settings.project)
    Tags.of(app).add("stage", settings.stage)
