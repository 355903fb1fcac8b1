import pytest
import torch

from model.training.config import MIXED_PRECISION
from model.training.loop.mixed_precision import half_type

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(monkeypatch):
    """Make torch tell of another machine than this one."""

    def with_(*, cpu: dict[str, object] | None = None, gpu_has_bfloat16: bool = True) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: cpu or {})
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: gpu_has_bfloat16)

    return with_


@pytest.mark.parametrize("choice", MIXED_PRECISION)
@pytest.mark.parametrize("device", [CPU, GPU], ids=str)
def test_off_is_off_on_every_device_and_only_on_reaches_cpus(machine, choice, device):
    machine(cpu={"avx512_bf16": True})
    expected = choice == "on" or (choice == "auto" and device == GPU)
    assert (half_type(choice, device) is torch.bfloat16) is expected


@pytest.mark.parametrize("choice", ["auto", "on"])
def test_gpus_without_bfloat16_take_float16(machine, choice):
    machine(gpu_has_bfloat16=False)
    assert half_type(choice, GPU) is torch.float16


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "bf16"])
def test_cpus_of_all_makes_are_known_by_their_instructions(machine, feature, caplog):
    machine(cpu={"architecture": "any", feature: True})
    assert half_type("on", CPU) is torch.bfloat16
    machine(cpu={"architecture": "any", feature: False})
    assert half_type("on", CPU) is None
    assert "no instructions for bfloat16" in caplog.text


def test_this_torch_tells_what_a_cpu_has():
    assert "architecture" in torch.cpu.get_capabilities()
