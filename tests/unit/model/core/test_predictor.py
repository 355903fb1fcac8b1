"""The predictor: right labels, true probabilities, and an artifact that does not fit is refused when it is loaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_fixtures import (
    COLOURS,
    DISPLAY_LABELS,
    make_artifact,
    make_card,
    picture,
    write_onnx,
)

from model.core.artifact import ONNX_FILE, ArtifactError
from model.core.decoding import ImageTooLargeError
from model.core.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(make_artifact(tmp_path_factory.mktemp("artifact")))


@pytest.mark.parametrize(("colour", "label"), list(zip(COLOURS, DISPLAY_LABELS, strict=True)))
def test_the_likeliest_label_comes_first_as_people_read_it(predictor: Predictor, colour: str, label: str) -> None:
    prediction = predictor.predict(picture(colour))
    assert prediction.ranked[0][0] == label
    assert len(prediction.ranked) == 3


def test_scores_are_probabilities_in_the_order_of_the_labels(predictor: Predictor) -> None:
    prediction = predictor.predict(picture("blue"), top_k=1)
    assert len(prediction.ranked) == 1
    assert prediction.scores.index(max(prediction.scores)) == 2
    assert math.isclose(sum(prediction.scores), 1, rel_tol=1e-12)
    # Logits are -4, -4, 4 by construction.
    assert math.isclose(prediction.scores[2], 1 / (1 + 2 * math.exp(-8)), rel_tol=1e-6)
    assert prediction.ranked[0][1] == max(prediction.scores)


@pytest.mark.parametrize(("top_k", "expected"), [(1, 1), (2, 2), (3, 3), (100, 3)])
def test_top_k_is_at_most_the_number_of_labels(predictor: Predictor, top_k: int, expected: int) -> None:
    ranked = predictor.predict(picture(), top_k).ranked
    assert len(ranked) == expected
    assert [p for _, p in ranked] == sorted((p for _, p in ranked), reverse=True)


def test_equal_probabilities_keep_the_order_of_the_labels(predictor: Predictor) -> None:
    assert [label for label, _ in predictor.predict(picture("gray")).ranked] == list(DISPLAY_LABELS)


def test_temperature_makes_the_answer_less_sure_but_not_another(tmp_path: Path) -> None:
    hot = Predictor.load(make_artifact(tmp_path, temperature=4.0)).predict(picture("red"))
    assert hot.ranked[0][0] == DISPLAY_LABELS[0]
    assert math.isclose(hot.scores[0], 1 / (1 + 2 * math.exp(-2)), rel_tol=1e-6)


def test_huge_logits_do_not_overflow(tmp_path: Path) -> None:
    write_onnx(tmp_path / ONNX_FILE, gain=1e30)
    make_card(tmp_path / ONNX_FILE, temperature=1e-3).save(tmp_path)
    assert Predictor.load(tmp_path).predict(picture("lime")).scores == [0.0, 1.0, 0.0]


def test_a_batch_gives_what_its_pictures_give_alone(predictor: Predictor) -> None:
    batch = np.random.default_rng(0).normal(size=(5, 3, 16, 16)).astype(np.float32)
    together = predictor.probabilities(batch)
    alone = np.concatenate([predictor.probabilities(batch[i : i + 1]) for i in range(5)])
    assert np.allclose(together, alone, atol=1e-6)


def test_the_pixel_limit_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(ImageTooLargeError, match="at most 100 are"):
        Predictor.load(make_artifact(tmp_path), max_pixels=100).predict(picture())


@pytest.mark.parametrize(
    ("card", "network", "message"),
    [
        ({}, {"outputs": 4}, r"shape \[1, 4\].*3 labels"),
        ({"input_size": 32, "resize_size": 32}, {}, "does not run"),
        ({}, {"input_name": "pixels"}, 'one input "image"'),
        ({}, {"gain": float("nan")}, "not finite"),
    ],
)
def test_a_network_that_does_not_fit_its_card_is_refused(
    tmp_path: Path, card: dict[str, Any], network: dict[str, Any], message: str
) -> None:
    make_artifact(tmp_path, **card)
    write_onnx(tmp_path / ONNX_FILE, **network)
    with pytest.raises(ArtifactError, match=message):
        Predictor.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x07" * 1000, None])
def test_a_file_that_is_no_network_is_refused(tmp_path: Path, content: bytes | None) -> None:
    network = make_artifact(tmp_path) / ONNX_FILE
    network.unlink()
    if content is not None:
        network.write_bytes(content)
    with pytest.raises(ArtifactError, match=f"has no {ONNX_FILE}" if content is None else "that ONNX Runtime can load"):
        Predictor.load(tmp_path)
