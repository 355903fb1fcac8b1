"""What the names of instance types say."""

import pytest

from infra import instance_types


@pytest.mark.parametrize(
    ("name", "architecture", "local_storage"),
    [
        ("ml.m5.large", "x86_64", False), ("ml.m5d.large", "x86_64", True), ("ml.c7g.large", "arm64", False),
        ("ml.m6gd.16xlarge", "arm64", True), ("ml.c6gn.large", "arm64", False), ("ml.g4dn.xlarge", "x86_64", True),
        ("ml.g5.xlarge", "x86_64", True), ("g5g.xlarge", "arm64", False), ("ml.p3.2xlarge", "x86_64", False),
        ("ml.p4d.24xlarge", "x86_64", True), ("ml.p6-b200.48xlarge", "x86_64", True),
        ("ml.p6e-gb200.36xlarge", "arm64", True), ("ml.trn1n.32xlarge", "x86_64", True),
        ("ml.inf2.xlarge", "x86_64", False), ("ml.c7i-flex.large", "x86_64", False), ("t4g.xlarge", "arm64", False),
    ],
)  # fmt: skip
def test_a_name_says_the_instruction_set_and_whether_there_are_disks(name, architecture, local_storage):
    assert instance_types.architecture(name) == architecture
    assert instance_types.has_local_storage(name) is local_storage


def test_each_service_knows_its_own_names():
    assert {"ml.m5.large", "ml.g5.xlarge", "ml.c7g.large"} <= instance_types.hosting()
    assert "ml.c7g.large" not in instance_types.training()
    assert "ml.t3.medium" in instance_types.notebook()
    assert {"t3.xlarge", "g4dn.xlarge"} <= instance_types.ec2()
