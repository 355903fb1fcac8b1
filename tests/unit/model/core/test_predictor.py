"""The predictor: right labels, true probabilities, and an artifact that does not fit is refused when it is loaded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_fixtures import (
    COLOURS,
    DISPLAY_LABELS,
    encode,
    make_artifact,
    make_card,
    picture,
    write_onnx,
)

from model.core.artifact import ONNX_FILE, ArtifactError
from model.core.decoding import ImageTooLargeError, UnreadableImageError
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


def test_a_picture_stored_turned_gets_the_answer_of_the_upright_one(predictor: Predictor) -> None:
    upright = Image.new("RGB", (40, 20), "red")
    upright.paste("blue", (0, 0, 19, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encode(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    assert predictor.predict(turned).scores == predictor.predict(encode(upright)).scores


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2000)])
def test_odd_shapes_are_answered(predictor: Predictor, size: tuple[int, int]) -> None:
    assert predictor.predict(picture("lime", size)).ranked[0][0] == DISPLAY_LABELS[1]


def test_a_batch_gives_what_its_pictures_give_alone(predictor: Predictor) -> None:
    batch = np.random.default_rng(0).normal(size=(5, 3, 16, 16)).astype(np.float32)
    together = predictor.probabilities(batch)
    alone = np.concatenate([predictor.probabilities(batch[i : i + 1]) for i in range(5)])
    assert np.allclose(together, alone, atol=1e-6)


def test_a_refused_picture_does_not_disturb_the_next(predictor: Predictor, tmp_path: Path) -> None:
    expected = predictor.predict(picture()).scores
    with pytest.raises(UnreadableImageError):
        predictor.predict(b"no picture")
    assert predictor.predict(picture()).scores == expected


def test_the_pixel_limit_is_the_callers(tmp_path: Path) -> None:
    with pytest.raises(ImageTooLargeError, match="at most 100 are"):
        Predictor.load(make_artifact(tmp_path), max_pixels=100).predict(picture())


class TestArtifactsThatDoNotFit:
    def test_a_network_with_another_number_of_classes(self, tmp_path: Path) -> None:
        make_artifact(tmp_path)
        write_onnx(tmp_path / ONNX_FILE, outputs=4)
        with pytest.raises(ArtifactError, match=r"shape \[1, 4\].*3 labels"):
            Predictor.load(tmp_path)

    def test_a_network_for_another_input_size(self, tmp_path: Path) -> None:
        make_artifact(tmp_path, input_size=32, resize_size=32)
        with pytest.raises(ArtifactError, match="does not run"):
            Predictor.load(tmp_path)

    def test_a_network_with_another_input(self, tmp_path: Path) -> None:
        write_onnx(tmp_path / ONNX_FILE, input_name="pixels")
        make_card(tmp_path / ONNX_FILE).save(tmp_path)
        with pytest.raises(ArtifactError, match='one input "image"'):
            Predictor.load(tmp_path)

    def test_a_network_whose_weights_are_not_finite(self, tmp_path: Path) -> None:
        make_artifact(tmp_path)
        write_onnx(tmp_path / ONNX_FILE, gain=float("nan"))
        with pytest.raises(ArtifactError, match="not finite"):
            Predictor.load(tmp_path)

    @pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x07" * 1000])
    def test_a_file_that_is_no_network(self, tmp_path: Path, content: bytes) -> None:
        make_artifact(tmp_path)
        (tmp_path / ONNX_FILE).write_bytes(content)
        with pytest.raises(ArtifactError, match="not a network that ONNX Runtime can load"):
            Predictor.load(tmp_path)

    def test_no_network(self, tmp_path: Path) -> None:
        make_artifact(tmp_path)
        (tmp_path / ONNX_FILE).unlink()
        with pytest.raises(ArtifactError, match=rf"has no {ONNX_FILE}"):
            Predictor.load(tmp_path)
