"""What the names of instance types say."""

import pytest

from infra import instance_types


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("ml.m5.large", "x86_64"), ("ml.c7g.large", "arm64"), ("ml.m6gd.16xlarge", "arm64"),
        ("ml.c6gn.large", "arm64"), ("ml.g5.xlarge", "x86_64"), ("ml.g4dn.xlarge", "x86_64"),
        ("ml.c7i-flex.large", "x86_64"), ("ml.p6-b200.48xlarge", "x86_64"), ("ml.p6e-gb200.36xlarge", "arm64"),
        ("ml.trn1.2xlarge", "x86_64"), ("t3.xlarge", "x86_64"), ("t4g.xlarge", "arm64"), ("g4dn.xlarge", "x86_64"),
        ("g5g.xlarge", "arm64"), ("im4gn.large", "arm64"),
    ],
)  # fmt: skip
def test_architecture(name, architecture):
    assert instance_types.architecture(name) == architecture


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("ml.m5.large", False), ("ml.m5d.large", True), ("ml.c6gd.large", True), ("ml.c6gn.large", False),
        ("ml.g4dn.xlarge", True), ("ml.g5.xlarge", True), ("ml.g6e.xlarge", True), ("ml.p3.2xlarge", False),
        ("ml.p3dn.24xlarge", True), ("ml.p4d.24xlarge", True), ("ml.p5en.48xlarge", True),
        ("ml.p6-b200.48xlarge", True), ("ml.trn1n.32xlarge", True), ("ml.inf2.xlarge", False),
        ("ml.dl1.24xlarge", True),
    ],
)  # fmt: skip
def test_local_storage(name, local):
    assert instance_types.has_local_storage(name) is local


def test_known_types_come_from_sagemakers_model():
    assert {"ml.m5.large", "ml.g5.xlarge", "ml.c7g.large"} <= instance_types.hosting()
    assert "ml.c7g.large" not in instance_types.training()


def test_ec2_and_sagemaker_know_their_own_names():
    assert {"t3.xlarge", "g4dn.xlarge"} <= instance_types.ec2()
    assert "ml.t3.medium" in instance_types.notebook()
    assert not any(name.startswith("ml.") for name in instance_types.ec2())
