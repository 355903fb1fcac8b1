"""ONNX Runtime and PyTorch are two ways to run one model: whichever a container has, the answers are the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from serving_fixtures import encode, make_artifact, make_card, picture

from model.core import predictor
from model.core.artifact import ONNX_FILE, WEIGHTS_FILE, ArtifactError
from model.core.predictor import Predictor

torch = pytest.importorskip("torch")

INPUT_SIZE = 32


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-18 with random weights in both forms."""
    from model.core import network
    from model.training.artifact.export import export_onnx

    folder = tmp_path_factory.mktemp("resnet18")
    torch.manual_seed(0)
    module = network.build("resnet18", 3).eval()
    torch.save(module.state_dict(), folder / WEIGHTS_FILE)
    export_onnx(module, folder / ONNX_FILE, input_size=INPUT_SIZE)
    make_card(folder / ONNX_FILE, input_size=INPUT_SIZE, resize_size=INPUT_SIZE + 4).save(folder)
    return folder


def photograph(seed: int) -> bytes:
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return encode(Image.fromarray(coarse).resize((320, 240), Image.Resampling.BICUBIC), "JPEG")


def test_both_engines_give_the_same_answers(artifact: Path) -> None:
    onnx, pytorch = Predictor.load(artifact, "onnx"), Predictor.load(artifact, "torch")
    for data in [photograph(seed) for seed in range(10)] + [picture("red"), picture("white")]:
        expected, got = onnx.predict(data), pytorch.predict(data)
        assert [label for label, _ in got.ranked] == [label for label, _ in expected.ranked]
        assert np.allclose(got.scores, expected.scores, atol=1e-5)


def test_onnx_runtime_is_taken_where_it_is_installed_and_imports_no_torch(artifact: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from model.core.predictor import Predictor\n"
        "Predictor.load(Path(sys.argv[1])); assert 'onnxruntime' in sys.modules\n"
        "sys.exit(sorted({name for name in sys.modules if name in ('torch', 'torchvision')}) or 0)"
    )
    subprocess.run([sys.executable, "-c", program, str(artifact)], check=True)


def test_pytorch_is_taken_where_onnx_runtime_is_missing(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find_spec(name))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # importing it now fails
    expected = Predictor.load(artifact, "torch").predict(photograph(0)).scores
    assert Predictor.load(artifact).predict(photograph(0)).scores == expected


def test_weights_of_another_network_are_refused(artifact: Path) -> None:
    card = make_card(artifact / ONNX_FILE, architecture="mobilenet_v3_small", input_size=32, resize_size=32)
    elsewhere = artifact / "other"
    elsewhere.mkdir()
    card.save(elsewhere)
    (elsewhere / WEIGHTS_FILE).write_bytes((artifact / WEIGHTS_FILE).read_bytes())
    with pytest.raises(ArtifactError, match="does not hold the weights of mobilenet_v3_small"):
        Predictor.load(elsewhere, "torch")


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    import pickle

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, (f"open({str(tmp_path / 'pwned')!r}, 'w')",)

    make_artifact(tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes(pickle.dumps(Attack(), protocol=2))
    with pytest.raises(ArtifactError, match="does not hold the weights"):
        Predictor.load(tmp_path, "torch")
    assert not (tmp_path / "pwned").exists()


def test_missing_weights_are_named(tmp_path: Path) -> None:
    make_artifact(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(ArtifactError, match=f"has no {WEIGHTS_FILE}"):
        Predictor.load(tmp_path, "torch")


@pytest.mark.parametrize(
    ("machine", "flags", "overflows"),
    [
        ("x86_64", "flags : avx2 avx512f avx512bw", True),
        ("x86_64", "flags : avx2 avx512f avx512_vnni", False),
        ("x86_64", "flags : avx2 avx_vnni", False),
        ("x86_64", None, True),  # macOS: nothing to read
        ("aarch64", "Features : asimd", False),
        ("arm64", None, False),
    ],
)
def test_int8_is_multiplied_exactly_where_the_processor_would_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Path, machine: str, flags: str | None, overflows: bool
) -> None:
    information = tmp_path / "cpuinfo"
    if flags is not None:
        information.write_text(flags)
    monkeypatch.setattr(predictor.platform, "machine", lambda: machine)
    monkeypatch.setattr(predictor, "_CPU_INFORMATION", information)
    predictor._int8_overflows.cache_clear()
    options = predictor.onnx_session(artifact / ONNX_FILE).get_session_options()
    predictor._int8_overflows.cache_clear()
    if overflows:
        assert options.get_session_config_entry("session.x64quantprecision") == "1"
    else:
        with pytest.raises(RuntimeError):
            options.get_session_config_entry("session.x64quantprecision")
