"""The CDK app: the settings of a stage become stacks.

    cdk synth -c stage=dev          templates and security checks, no AWS account needed
    cdk deploy -c stage=dev --all   into the account that the credentials name

``-c artifact=FILE`` deploys another model artifact than the one that the settings name.
"""

import signal
import sys
from pathlib import Path

# ruff: noqa: E402  # first of all, so that Ctrl-C ends the imports, too, without a stack trace
signal.signal(signal.SIGINT, signal.SIG_DFL)

from aws_cdk import App

from infra.application import synthesise
from infra.gate.compliance import ComplianceError
from infra.settings import ROOT, load
from infra.validation import SettingsError
from model.core.artifact import ArtifactError
from model.core.artifact_digest import DigestError


def main() -> None:
    """Synthesise the stage that the context names; `dev` by default."""
    app = App(analytics_reporting=False)
    artifact = app.node.try_get_context("artifact")
    if artifact and not (ROOT / artifact).is_file():
        sys.exit(f"There is no model artifact at {artifact}.")
    try:
        settings = load(app.node.try_get_context("stage") or "dev")
        synthesise(app, settings, Path(artifact or settings.artifact))
    except (SettingsError, ComplianceError, ArtifactError, DigestError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
