"""What a notebook must be like to be kept in the repository; that it runs is for the tests of the local AWS."""

from __future__ import annotations

from pathlib import Path

import nbformat

NOTEBOOKS = sorted(Path(__file__).parents[3].glob("notebooks/*.ipynb"))


def test_there_is_a_notebook() -> None:
    assert [path.name for path in NOTEBOOKS] == ["train_and_deploy.ipynb"]


def test_notebooks_are_valid_and_hold_nothing_of_the_machine_they_were_written_on() -> None:
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None
