"""Preprocessing and the predictor: right labels, true probabilities; an artifact that does not fit is refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from serving_fixtures import DISPLAY_LABELS, encode, image_bytes, make_artifact, write_onnx

from model.core import predictor as predictor_module
from model.core.artifact import CARD_FILE, ONNX_FILE, ArtifactError, ModelCard
from model.core.predictor import Predictor, onnx_session
from model.core.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(make_artifact(tmp_path_factory.mktemp("artifact")))


def test_scores_are_probabilities_in_the_order_of_the_labels(predictor: Predictor) -> None:
    prediction = predictor.predict(image_bytes("blue"), top_k=1)
    # Logits are -4, -4, 4 by construction.
    assert math.isclose(prediction.scores[2], 1 / (1 + 2 * math.exp(-8)), rel_tol=1e-6)
    assert math.isclose(sum(prediction.scores), 1, rel_tol=1e-12)
    assert prediction.ranked == [(DISPLAY_LABELS[2], prediction.scores[2])]


def test_temperature_makes_the_answer_less_sure(tmp_path: Path) -> None:
    hot = Predictor.load(make_artifact(tmp_path, temperature=4.0)).predict(image_bytes("red"))
    assert math.isclose(hot.scores[0], 1 / (1 + 2 * math.exp(-2)), rel_tol=1e-6)


@pytest.mark.parametrize(
    ("card", "network", "message"),
    [
        ({}, {"outputs": 4}, r"shape \[1, 4\].*3 labels"),
        ({"input_size": 32, "resize_size": 32}, {}, "does not run"),
        ({}, {"input_name": "pixels"}, 'one input "image"'),
        ({}, {"gain": float("nan")}, "not finite"),
        ({}, b"garbage", "that ONNX Runtime can load"),
        ({}, None, f"has no {ONNX_FILE}"),
    ],
)
def test_a_network_that_does_not_fit_its_card_is_refused(tmp_path, card, network, message):
    path = make_artifact(tmp_path, **card) / ONNX_FILE
    if isinstance(network, dict):
        write_onnx(path, **network)
    elif network is None:
        path.unlink()
    else:
        path.write_bytes(network)
    with pytest.raises(ArtifactError, match=message):
        Predictor.load(tmp_path)


@pytest.mark.parametrize("scores", [[0.25], [math.nan], [math.inf], [-0.1], [0.1, 0.2], [[0.1]]], ids=str)
def test_the_out_of_distribution_score_is_one_finite_number_or_no_answer(predictor, scores):
    own = Predictor(predictor.card, lambda _: [np.zeros((1, 3), np.float32), np.array(scores, np.float32)])
    if scores == [0.25]:
        assert own.predict(image_bytes("red")).ood_score == scores[0]
    else:
        with pytest.raises(ArtifactError, match="ood_score must be one number for each image"):
            own.predict(image_bytes("red"))
    assert predictor.predict(image_bytes("red")).ood_score is None  # an artifact without the output


@pytest.mark.parametrize(
    ("machine", "flags", "overflows"),
    [("x86_64", "avx2 avx512f", True), ("x86_64", "avx2 avx512_vnni", False), ("aarch64", "asimd", False)],
)
def test_int8_is_multiplied_exactly_where_it_would_overflow(tmp_path, monkeypatch, machine, flags, overflows):
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(predictor_module.platform, "machine", lambda: machine)
    monkeypatch.setattr(predictor_module, "_CPU_INFORMATION", tmp_path / "cpuinfo")
    predictor_module._int8_overflows.cache_clear()
    options = onnx_session(make_artifact(tmp_path) / ONNX_FILE).get_session_options()
    predictor_module._int8_overflows.cache_clear()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    if overflows:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.x64quantprecision")


@pytest.mark.parametrize("interpolation", [None, "bilinear", "bicubic"])
def test_the_server_sees_what_the_card_says(tmp_path, interpolation):
    constants = {"input_size": 16, "resize_size": 20, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    path = make_artifact(tmp_path, **constants) / CARD_FILE
    card = json.loads(path.read_text()) | {"interpolation": interpolation}
    if interpolation is None:  # as an earlier version has written it
        del card["interpolation"]
    path.write_text(json.dumps(card))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    method = Image.Resampling[(interpolation or "bilinear").upper()]
    pixels = np.asarray(image.resize((20, 20), method).crop((2, 2, 18, 18))) / 255
    expected = ((pixels - constants["mean"]) / constants["std"]).transpose(2, 0, 1)
    found = Predictor(ModelCard.load(tmp_path), lambda images: images).prepare(encode(image))
    np.testing.assert_allclose(found, expected, atol=0.02)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 80), st.integers(0, 40))
@example(1, 60_000, 64, 8)  # a strip is not blown up on the way
def test_any_shape_becomes_the_networks_input(width, height, input_size, extra):
    values = Preprocessing(input_size, input_size + extra)(Image.new("RGB", (width, height), (255, 0, 128)))
    assert (values.shape, values.dtype) == ((3, input_size, input_size), np.float32)
    assert values.flags.c_contiguous
    expected = (np.array([1, 0, 128 / 255]) - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(values, np.broadcast_to(expected[:, None, None], values.shape), atol=1e-5)


@pytest.mark.parametrize("size", [(320, 200), (200, 320), (96, 96), (40, 30)])
def test_crop_shows_what_resizing_all_and_cutting_the_centre_shows(size):
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    image = Image.fromarray(np.stack([x, y, (x + y) / 2], axis=2).astype(np.uint8))
    found = Preprocessing(input_size=64, resize_size=72).crop(image).astype(int)
    factor = 72 / min(size)
    resized = image.resize((round(size[0] * factor), round(size[1] * factor)), Image.Resampling.BILINEAR)
    left, top = round((resized.width - 64) / 2), round((resized.height - 64) / 2)
    expected = np.asarray(resized.crop((left, top, left + 64, top + 64))).astype(int)
    assert np.abs(found - expected).max() <= 6  # of 255: half a pixel of rounding where the image is steepest
