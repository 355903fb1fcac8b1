"""What the function and its URL promise."""

from dataclasses import replace

import pytest
from templates import PROJECT, SynthesisedStage

from infra.tables.function import ConcurrencyScalingSettings


def permissions_to_call(stage: SynthesisedStage) -> list[dict]:
    """Who may call the function; the cost guard's has a schedule instead."""
    found = [r["Properties"] for _, _, r in stage.all_resources() if r["Type"] == "AWS::Lambda::Permission"]
    return [permission for permission in found if permission["Principal"] != "events.amazonaws.com"]


def version_id(stage: SynthesisedStage) -> str:
    (name,) = stage.resources("inference", "AWS::Lambda::Version")
    return name


def test_nobody_is_given_permission_to_call_by_default(stage):
    assert not permissions_to_call(stage)


@pytest.mark.parametrize("organization", [None, "o-abcdefghij"])
def test_invokers_get_both_actions_that_a_signed_url_call_needs(synthesise, stages, organization):
    settings = stages["dev"].settings
    invoker = "arn:aws:iam::111122223333:role/web"
    function = replace(settings.function, invokers=(invoker,), organization=organization)
    permissions = permissions_to_call(synthesise(replace(settings, function=function)))
    assert {permission.get("PrincipalOrgID") for permission in permissions} == {organization}
    assert {p["Principal"] for p in permissions} == {invoker}
    assert {p["Action"]: (p.get("FunctionUrlAuthType"), p.get("InvokedViaFunctionUrl")) for p in permissions} == {
        "lambda:InvokeFunctionUrl": ("AWS_IAM", None),
        "lambda:InvokeFunction": (None, True),
    }
    assert [p["FunctionName"] for p in permissions] == [{"Ref": "ClassifierLiveC9A00DE4"}] * 2


def test_the_contact_reaches_the_function(synthesise, stages):
    settings = stages["dev"].settings
    stage = synthesise(replace(settings, function=replace(settings.function, contact="dogs@example.org")))
    functions = stage.resources("inference", "AWS::Lambda::Function").values()
    variables = [function["Properties"].get("Environment", {}).get("Variables", {}) for function in functions]
    assert [each["CONTACT"] for each in variables if "ENDPOINT_NAME" in each] == ["dogs@example.org"]


def test_a_public_url_passes_the_checks_only_with_its_reason_on_record(synthesise, stages):
    settings = stages["dev"].settings
    reason = "A demonstration without secrets, behind a budget."
    public = replace(settings.function, url_auth="NONE", public_reason=reason)
    stage = synthesise(replace(settings, function=public))
    assert stage.properties("inference", "AWS::Lambda::Url")["AuthType"] == "NONE"
    suppressed = [s for plugin in stage.report() for s in plugin.get("suppressedViolations", [])]
    assert {s["ruleName"] for s in suppressed if s["reason"] == reason} == {
        "FUNCTION_URL_IS_SIGNED",
        "PRINCIPAL_IS_NAMED[*]",
    }


def test_provisioned_concurrency_scales_only_when_asked_to(synthesise, stages):
    settings = stages["prod"].settings
    scaling = ConcurrencyScalingSettings(min_provisioned=1, max_provisioned=10, target_utilization=0.6)
    scaled = synthesise(replace(settings, function=replace(settings.function, scaling=scaling)))

    targets = scaled.resources("inference", "AWS::ApplicationAutoScaling::ScalableTarget").values()
    (target,) = (found for found in targets if found["Properties"]["ServiceNamespace"] == "lambda")
    assert (target["Properties"]["MinCapacity"], target["Properties"]["MaxCapacity"]) == (1, 10)
    assert "ClassifierLiveC9A00DE4" in str(target)  # registered only once the alias is there
    assert "0.6" in str(scaled.resources("inference", "AWS::ApplicationAutoScaling::ScalingPolicy"))
    assert (
        len(stages["prod"].resources("inference", "AWS::ApplicationAutoScaling::ScalableTarget")) == 1
    )  # the endpoint's


def test_a_changed_configuration_publishes_a_new_version_and_the_same_does_not(synthesise, stages):
    settings = stages["dev"].settings
    changed = synthesise(replace(settings, function=replace(settings.function, endpoint_timeout_seconds=11)))
    assert version_id(changed) != version_id(stages["dev"])
    assert version_id(synthesise(settings)) == version_id(stages["dev"])


def test_its_code_is_the_package_and_nothing_else(stage):
    function = stage.resources("inference", "AWS::Lambda::Function")["ClassifierFunction1A3EEE90"]["Properties"]
    folder = stage.assembly / f"asset.{function['Code']['S3Key'].removesuffix('.zip')}"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    sources = [*PROJECT.glob("lambda_fn/**/*.py"), PROJECT / "lambda_fn" / "openapi.json"]
    assert files == {str(path.relative_to(PROJECT)) for path in sources}
