import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image

from model.core.network import NetworkError, architectures, build, check_input_size, made_for, torchvision_models
from model.core.transforms import IMAGENET_MEAN

# One of each kind of classifier: a layer, the last of a sequence, a convolution; and one with auxiliary classifiers.
KINDS = ["resnet9", "mobilenet_v3_small", "squeezenet1_1", "googlenet"]


@pytest.mark.parametrize("architecture", KINDS)
def test_every_kind_starts_from_published_weights_but_for_the_classifier(architecture, tmp_path):
    published = build(architecture, 10)
    torch.save(published.state_dict(), tmp_path / "weights.pt")
    network = build(architecture, 4, weights=tmp_path / "weights.pt")
    assert network.training
    theirs = published.state_dict()
    differing = {
        name.rpartition(".")[0]
        for name, value in network.state_dict().items()
        if value.shape != theirs[name].shape or not torch.equal(value, theirs[name])
    }
    assert len(differing) == 1, "only the classifier"
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 4)


@pytest.mark.parametrize("architecture", ["mnasnet0_5", "densenet121", "vgg11_bn"])
def test_weights_are_read_as_torchvision_published_them_before_torch_had_all_it_has(architecture, tmp_path):
    own = build(architecture, 10).state_dict()
    old = {name: value for name, value in own.items() if "num_batches_tracked" not in name}  # no versions, either
    torch.save({re.sub(r"(denselayer\d+\.\w+)(\d\.)", r"\1.\2", name): old[name] for name in old}, tmp_path / "old.pt")
    first, value = next(build(architecture, 4, weights=tmp_path / "old.pt").named_parameters())
    assert torch.equal(value, own[first])


class Hostile:
    def __reduce__(self):
        return (open, ("/dev/null",))


@pytest.mark.parametrize("content", [b"not weights", pickle.dumps(Hostile()), pickle.dumps([1, 2]), None])
def test_files_that_are_no_weights_are_refused_without_running_them(content, tmp_path):
    if content is not None:
        (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(NetworkError, match=r"weights\.pt"):
        build("resnet18", 4, weights=tmp_path / "weights.pt")


def test_what_does_not_fit_a_network_is_an_error_in_words(tmp_path):
    torch.save(build("resnet34", 4).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(NetworkError, match="does not fit a resnet50"):
        build("resnet50", 4, weights=tmp_path / "weights.pt")
    for wrapped in ({"model": {}, "epoch": 3}, {"module.conv1.weight": torch.zeros(1)}):
        torch.save(wrapped, tmp_path / "weights.pt")
        found = re.escape(
            f"begins with {next(iter(wrapped))!r}, and not with 'conv1.weight'. It takes what torch.save("
        )
        with pytest.raises(NetworkError, match=found):
            build("resnet50", 4, weights=tmp_path / "weights.pt")
    with pytest.raises(NetworkError, match=r"did you mean .*resnet18"):
        build("resnet_18", 3)
    for architecture, size, made in (("alexnet", 32, 224), ("vit_b_16", 40, 224), ("inception_v3", 64, 299)):
        message = rf"{architecture} does not take images of {size} x {size} pixels.*it is made for {made} x {made}:"
        with torch.device("meta"), pytest.raises(NetworkError, match=message):
            check_input_size(build(architecture, 2, input_size=size), architecture, size)


def test_every_network_is_made_for_what_it_is_published_with():
    made = {name: made_for(name) for name in architectures()}
    sizes = {"resnet9": 64, "resnet50": 224, "inception_v3": 299, "swin_v2_t": 256, "vit_h_14": 518, "alexnet": 224}
    assert {name: made[name].input_size for name in sizes} == sizes
    assert [name for name, found in made.items() if found.mean != IMAGENET_MEAN] == ["efficientnet_v2_l"]
    assert sum(found.interpolation == "bicubic" for found in made.values()) == 17
    assert all(found.resize_size >= found.input_size for found in made.values())


@pytest.mark.parametrize("architecture", ["resnet50", "efficientnet_b0", "efficientnet_v2_l", "vit_h_14"])
def test_a_network_sees_what_its_published_weights_saw(architecture):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 600, 3), np.uint8))
    theirs = torchvision_models().get_model_weights(architecture).DEFAULT.transforms()(image).numpy()
    np.testing.assert_allclose(made_for(architecture)(image), theirs, atol=0.03)  # a level of rounding has 0.02


@pytest.mark.parametrize("size", [16, 32, 48])
def test_a_vision_transformer_takes_other_sizes_also_with_weights(size, monkeypatch, tmp_path):
    models = torchvision_models()

    def tiny(_: str, weights: None, num_classes: int, image_size: int) -> torch.nn.Module:
        return models.VisionTransformer(image_size, 8, 1, 2, 16, 16, num_classes=num_classes)

    monkeypatch.setattr(models, "get_model", tiny)  # in place of the 86 million weights of the smallest
    published = build("vit_b_16", 3, input_size=32).state_dict()
    published["encoder.pos_embedding"] = torch.ones(1, 17, 16)
    torch.save(published, tmp_path / "weights.pt")
    network = build("vit_b_16", 3, weights=tmp_path / "weights.pt", input_size=size)
    check_input_size(network, "vit_b_16", size)
    torch.testing.assert_close(network.encoder.pos_embedding.detach(), torch.ones(1, 1 + (size // 8) ** 2, 16))
