import pytest
import torch

from model.training.loop.mixed_precision import half_type

CPU, GPU = torch.device("cpu"), torch.device("cuda")
FEATURES = ("avx512_bf16", "amx_bf16", "bf16")


@pytest.mark.parametrize(
    ("choice", "device", "cpu", "gpu", "expected"),
    [
        ("off", CPU, "bf16", True, None),
        ("off", GPU, "bf16", True, None),
        ("auto", CPU, "bf16", True, None),
        ("auto", GPU, "", True, torch.bfloat16),
        ("auto", GPU, "", False, torch.float16),
        ("on", GPU, "", False, torch.float16),
        ("on", CPU, "sse", True, None),
        *[("on", CPU, feature, True, torch.bfloat16) for feature in FEATURES],
    ],
    ids=str,
)
def test_what_is_computed_in_16_bits(choice, device, cpu, gpu, expected, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "any", cpu: True})
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: gpu)
    assert half_type(choice, device) is expected
    assert ("no instructions for bfloat16" in caplog.text) == (cpu == "sse")


def test_this_torch_tells_what_a_cpu_has():
    assert "architecture" in torch.cpu.get_capabilities()
