"""What the function and its URL promise."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from templates import PROJECT, SynthesisedStage, role_for, statements

from cli.prices import PROVISIONED_USD_PER_GB_SECOND
from infra.constructs import classifier_function
from infra.function_settings import ConcurrencyScalingSettings


def properties(stage: SynthesisedStage) -> dict:
    return stage.resources("inference", "AWS::Lambda::Function")["ClassifierFunction1A3EEE90"]["Properties"]


def version_id(stage: SynthesisedStage) -> str:
    (name,) = stage.resources("inference", "AWS::Lambda::Version")
    return name


def test_function_may_invoke_this_endpoint_and_write_its_log_and_nothing_else(stage):
    permissions = [
        (statement["Effect"], statement["Action"], statement["Resource"])
        for statement in statements(role_for(stage, "inference", "Classifier function"))
    ]
    assert permissions == [
        ("Allow", ["logs:CreateLogStream", "logs:PutLogEvents"], [{"Fn::GetAtt": ["ClassifierLogsA5745F3E", "Arn"]}]),
        ("Allow", ["sagemaker:InvokeEndpoint"], [{"Ref": "Endpoint8024A810"}]),
    ]


def test_url_belongs_to_the_alias_and_takes_signed_calls_only(stage):
    url = stage.properties("inference", "AWS::Lambda::Url")
    assert url["AuthType"] == "AWS_IAM"
    assert url["Qualifier"] == "live"
    assert "Cors" not in url


def test_nobody_is_given_permission_to_call_by_default(stage):
    assert not [r for _, _, r in stage.all_resources() if r["Type"] == "AWS::Lambda::Permission"]


def test_invokers_get_both_actions_that_a_signed_url_call_needs(synthesise, stages):
    settings = stages["dev"].settings
    invoker = "arn:aws:iam::111122223333:role/web"
    stage = synthesise(replace(settings, function=replace(settings.function, invokers=(invoker,))))
    permissions = [r["Properties"] for r in stage.resources("inference", "AWS::Lambda::Permission").values()]
    assert {p["Principal"] for p in permissions} == {invoker}
    assert {p["Action"]: (p.get("FunctionUrlAuthType"), p.get("InvokedViaFunctionUrl")) for p in permissions} == {
        "lambda:InvokeFunctionUrl": ("AWS_IAM", None),
        "lambda:InvokeFunction": (None, True),
    }
    assert [p["FunctionName"] for p in permissions] == [{"Ref": "ClassifierLiveC9A00DE4"}] * 2


def test_a_public_url_passes_the_checks_only_with_its_reason_on_record(synthesise, stages):
    settings = stages["dev"].settings
    reason = "A demonstration without secrets, behind a budget."
    public = replace(settings.function, url_auth="NONE", public_reason=reason)
    stage = synthesise(replace(settings, function=public))
    assert stage.properties("inference", "AWS::Lambda::Url")["AuthType"] == "NONE"
    suppressed = [s for plugin in stage.report() for s in plugin.get("suppressedViolations", [])]
    assert {s["ruleName"] for s in suppressed if s["reason"] == reason} == {
        "FUNCTION_URL_IS_SIGNED",
        "FUNCTION_HAS_NAMED_CALLERS",
    }


def test_concurrency_is_provisioned_on_the_alias_never_on_the_version(stage):
    alias = stage.properties("inference", "AWS::Lambda::Alias")
    provisioned = alias["ProvisionedConcurrencyConfig"]["ProvisionedConcurrentExecutions"]
    assert provisioned == stage.settings.function.provisioned_concurrency >= 1
    assert alias["Name"] == "live"
    assert "ProvisionedConcurrencyConfig" not in stage.properties("inference", "AWS::Lambda::Version")


@pytest.mark.parametrize("file", ["docs/infrastructure.md", "infra/environments/dev.toml"])
def test_what_is_kept_warm_costs_what_is_written_there(stages, file):
    function = stages["dev"].settings.function
    gigabytes = function.memory_mb / 1024 * function.provisioned_concurrency
    price = f"{gigabytes * 3600 * PROVISIONED_USD_PER_GB_SECOND:.3f} USD per hour"
    assert price in (PROJECT / file).read_text(encoding="utf-8")


def test_provisioned_concurrency_scales_only_when_asked_to(synthesise, stages):
    settings = stages["prod"].settings
    scaling = ConcurrencyScalingSettings(min_provisioned=1, max_provisioned=10, target_utilization=0.6)
    stage = synthesise(replace(settings, function=replace(settings.function, scaling=scaling)))
    (target,) = (
        resource
        for resource in stage.resources("inference", "AWS::ApplicationAutoScaling::ScalableTarget").values()
        if resource["Properties"]["ServiceNamespace"] == "lambda"
    )
    assert (target["Properties"]["MinCapacity"], target["Properties"]["MaxCapacity"]) == (1, 10)
    # Registered only once the alias is there.
    assert "ClassifierLiveC9A00DE4" in str(target)
    policies = stage.resources("inference", "AWS::ApplicationAutoScaling::ScalingPolicy").values()
    targets = [p["Properties"]["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] for p in policies]
    assert 0.6 in targets
    assert "lambda" not in str(stages["prod"].resources("inference", "AWS::ApplicationAutoScaling::ScalableTarget"))


@pytest.mark.parametrize("change", [{"memory_mb": 2048}, {"endpoint_timeout_seconds": 11}])
def test_a_changed_configuration_publishes_a_new_version(synthesise, stages, change):
    settings = stages["dev"].settings
    changed = synthesise(replace(settings, function=replace(settings.function, **change)))
    assert version_id(changed) != version_id(stages["dev"])


def test_the_same_sources_publish_no_new_version(synthesise, stages):
    assert version_id(synthesise(stages["dev"].settings)) == version_id(stages["dev"])


class TestAsset:
    """The function's code, packed from a copy of the project."""

    @pytest.fixture
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        package = tmp_path / "lambda_fn"
        package.mkdir()
        for source in (PROJECT / "lambda_fn").glob("*.py"):
            shutil.copy(source, package)
        monkeypatch.setattr(classifier_function, "ROOT", tmp_path)
        return tmp_path

    @staticmethod
    def packed(stage: SynthesisedStage) -> tuple[str, set[str]]:
        """Hash and file names of the code asset."""
        digest = properties(stage)["Code"]["S3Key"].removesuffix(".zip")
        folder = stage.assembly / f"asset.{digest}"
        return digest, {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    def test_holds_the_package_and_nothing_else(self, project, synthesise, stages):
        for stray in (
            "lambda_fn/__pycache__/x.pyc",
            "lambda_fn/notes.txt",
            "lambda_fn/sub/deep.py",
            "model/a.py",
            "s.py",
        ):
            path = project / stray
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text("")
        _, names = self.packed(synthesise(stages["dev"].settings))
        assert names == {f"lambda_fn/{path.name}" for path in (PROJECT / "lambda_fn").glob("*.py")}
        assert "lambda_fn/__init__.py" in names

    def test_changed_code_publishes_a_new_version(self, project, synthesise, stages):
        before = synthesise(stages["dev"].settings)
        with (project / "lambda_fn" / "__init__.py").open("a", encoding="utf-8") as file:
            file.write("\n# changed\n")
        after = synthesise(stages["dev"].settings)
        assert self.packed(after)[0] != self.packed(before)[0]
        assert version_id(after) != version_id(before)
