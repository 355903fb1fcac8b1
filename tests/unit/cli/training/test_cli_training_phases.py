"""What `kennel train` says while a job works."""

from __future__ import annotations

from typing import Any

import pytest

from cli.training import phases


def description(*course: tuple[str, str], status: str = "InProgress") -> dict[str, Any]:
    transitions = [{"Status": phase, "StatusMessage": message} for phase, message in course]
    return {"TrainingJobStatus": status, "SecondaryStatusTransitions": transitions}


def test_each_phase_is_printed_once_and_its_progress_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(phases, "monotonic", lambda: clock[0])
    printer = phases.PhasePrinter()
    starting = ("Starting", "Preparing")
    printer.print_new({"TrainingJobStatus": "InProgress"})
    printer.print_new(description(starting))
    for clock[0], done in ((0.5, 10), (1.0, 20), (6.0, 60), (12.0, 60)):
        printer.print_new(description(starting, ("Downloading", f"{done} of 100 objects")))
    course = (starting, ("Downloading", "100 of 100 objects"), ("Training", ""), ("Uploading", "The model"))
    for _ in range(2):
        printer.print_new(description(*course, ("Completed", "Done"), status="Completed"))
    assert capsys.readouterr().out.splitlines() == [
        "Starting: Preparing",
        "Downloading: 10 of 100 objects",
        "Downloading: 60 of 100 objects",
        "Training",
        "Uploading: The model",
    ]
