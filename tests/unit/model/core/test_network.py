from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch

from model.core.network import NetworkError, architectures, build, check_input_size

# One of each kind of classifier: a layer, the last of a sequence, a convolution; and one with auxiliary classifiers.
KINDS = ["resnet9", "resnet18", "mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5", "googlenet"]


@pytest.mark.parametrize("architecture", KINDS)
def test_every_kind_of_network_gets_one_output_per_class(architecture):
    network = build(architecture, 7)
    assert network.training
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_a_misspelt_architecture_gets_suggestions():
    with pytest.raises(NetworkError, match=r"'resnet_18'.*did you mean .*resnet18"):
        build("resnet_18", 3)


def test_only_classification_networks_are_offered():
    names = architectures()
    assert {"resnet9", "resnet18", "vit_b_16"} <= set(names)
    assert not any("rcnn" in name or "deeplab" in name for name in names)


def test_the_seed_decides_the_weights():
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build("shufflenet_v2_x0_5", 3).state_dict()["fc.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("architecture", KINDS)
def test_weights_for_other_classes_give_all_but_the_classifier(architecture, tmp_path):
    published = build(architecture, 10)
    torch.save(published.state_dict(), tmp_path / "weights.pt")
    network = build(architecture, 4, weights=tmp_path / "weights.pt")

    differing = {
        name.rpartition(".")[0]
        for name, value in network.state_dict().items()
        if value.shape != published.state_dict()[name].shape or not torch.equal(value, published.state_dict()[name])
    }
    assert len(differing) == 1, "only the classifier"
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 4)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(build("resnet34", 4).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(NetworkError, match="does not fit a resnet50"):
        build("resnet50", 4, weights=tmp_path / "weights.pt")
    torch.save(build("squeezenet1_1", 4).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(NetworkError, match="no weights of a resnet50"):
        build("resnet50", 4, weights=tmp_path / "weights.pt")


class Hostile:
    def __reduce__(self):
        return (open, ("/dev/null",))


@pytest.mark.parametrize("content", [b"", b"not weights", pickle.dumps(Hostile()), pickle.dumps([1, 2]), None])
def test_files_that_are_no_weights_are_refused_without_running_them(content, tmp_path):
    if content is not None:
        (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(NetworkError, match=r"weights\.pt"):
        build("resnet18", 4, weights=tmp_path / "weights.pt")


def test_a_size_that_the_network_does_not_take_is_an_error_in_words():
    check_input_size(build("resnet18", 2), "resnet18", 32)
    with pytest.raises(NetworkError, match="alexnet does not take images of 32 x 32 pixels"):
        check_input_size(build("alexnet", 2), "alexnet", 32)


def test_torchvision_imports_in_a_fresh_process_whatever_torch_it_was_built_for():
    program = (
        "import torch; from model.core.network import build;"
        "print(build('resnet18', 3)(torch.zeros(2, 3, 32, 32)).shape)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "torch.Size([2, 3])", done.stderr
