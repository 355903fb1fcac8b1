"""The notebook on a fresh clone whose local AWS has nothing in it yet."""

from __future__ import annotations

import nbformat
import pytest
from clone import Project

pytestmark = pytest.mark.slow


def test_the_notebook_runs_from_its_first_cell_to_its_last(project: Project) -> None:
    """With a data set, a search and a training that are as small as they can be."""
    project.start_local_aws()
    notebook = nbformat.read(project.root / "notebooks/train_and_deploy.ipynb", as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source += (
        "\nBREEDS, PER_CLASS = 6, (60, 10, 10)\nTUNING_JOBS, TUNING_EPOCHS, EPOCHS, INSTANCES = 2, 1, 2, 2\n"
    )
    nbformat.write(notebook, project.root / "notebooks/shortened.ipynb")
    execute = (
        "import nbclient, nbformat, sys\n"
        "notebook = nbformat.read(sys.argv[1], as_version=4)\n"
        "nbclient.NotebookClient(notebook, timeout=600, resources={'metadata': {'path': 'notebooks'}}).execute()\n"
        "nbformat.write(notebook, sys.argv[1])\n"
    )
    project.run("python", "-c", execute, "notebooks/shortened.ipynb")
    notebook = nbformat.read(project.root / "notebooks/shortened.ipynb", as_version=4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    plots = [name for output in outputs for name in output.get("data", {}) if name.startswith("image/")]
    assert plots.count("image/png") == 5  # images, curves, confusion, calibration, answers
    assert plots.count("image/svg+xml") == 1  # the search
    said = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    assert "workers=2" in said
    assert "accuracy through the function URL" in said
    assert "SageMakerVariantInvocationsPerInstance" in said
