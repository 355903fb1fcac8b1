"""What `kennel evaluate` says of answers that cannot be compared with the artifact's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from training_fixtures import write_data_set

from cli.errors import WorkFailedError
from cli.serving import classify
from cli.serving.function_client import Answer


@pytest.mark.parametrize("scores", [{}, {"scores": [1.0]}], ids=["none", "too few"])
def test_an_answer_without_a_score_for_each_breed_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scores: dict[str, Any]
) -> None:
    found = {"predictions": [{"label": "Pug", "probability": 1.0}], "model": {"name": "dogs", "version": "1"}}
    client = SimpleNamespace(classify_bytes=lambda *_, **__: Answer(200, found | scores))
    monkeypatch.setattr(classify, "FunctionClient", lambda *_, **__: client)
    card = SimpleNamespace(labels=["Pug", "Akita"], version="1")
    monkeypatch.setattr(classify, "_load", lambda artifact: SimpleNamespace(card=card))
    stage: Any = SimpleNamespace(artifact=tmp_path)
    with pytest.raises(WorkFailedError, match="answers have no score for each breed"):
        classify.evaluate_deployment(stage, write_data_set(tmp_path / "dogs", train=1, valid=1, test=1))
