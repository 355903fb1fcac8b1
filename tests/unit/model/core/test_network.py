import pickle

import pytest
import torch

from model.core.network import NetworkError, build, check_input_size

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
    with pytest.raises(NetworkError, match=r"did you mean .*resnet18"):
        build("resnet_18", 3)
    with pytest.raises(NetworkError, match="alexnet does not take images of 32 x 32 pixels"):
        check_input_size(build("alexnet", 2), "alexnet", 32)
