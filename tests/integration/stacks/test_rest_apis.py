"""REST APIs in front of an endpoint and of a function, as the CDK makes them."""

from __future__ import annotations

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aws_cdk import App, Stack, assertions
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from local_aws_harness import policy, refused, trust
from sagemaker_local import LocalSageMaker

REQUEST = """{
  "instances": [
    #set( $user = $input.params("user") )
    #foreach( $item in $input.params("items").split(",") )
      {"in0": [$user], "in1": [$item]}#if( $foreach.hasNext ),#end
      $esc.newline
    #end
  ]
}"""
#: The model answers with what it is sent.
RESPONSE = '[#foreach( $each in $input.path("$.instances") )$each.in1[0]#if( $foreach.hasNext ),#end#end]'
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
PICTURE = b"\xff\xd8\xff\x00picture\xfe"
HANDLER = """
import json
def handler(event, context):
    if event.get("body") == "broken":
        raise ValueError("secret")
    if event.get("body") == "split":
        return {"statusCode": 200, "headers": {"X-Seen": "a\\r\\nb: c"}}
    if event.get("body") == "malformed":
        return {"statusCode": 200, "hello": "world"}
    headers = {"X-Seen": event["path"], "Content-Length": "1"}
    return {"statusCode": 201, "headers": headers, "body": json.dumps(event["body"])}
"""
ACCESS_LOG = "$context.requestId $context.status $context.identity.userArn"


def template(endpoint: str) -> dict[str, Any]:
    stack = Stack(App(), "Front")
    role = iam.Role(stack, "Role", assumed_by=iam.ServicePrincipal("apigateway.amazonaws.com"))
    arn = stack.format_arn(service="sagemaker", resource="endpoint", resource_name=endpoint.lower())
    role.add_to_policy(iam.PolicyStatement(actions=["sagemaker:InvokeEndpoint"], resources=[arn]))
    log = logs.LogGroup(stack, "Log")
    api = apigateway.RestApi(
        stack, "Api", cloud_watch_role=True, binary_media_types=["image/*"],
        deploy_options=apigateway.StageOptions(
            access_log_destination=apigateway.LogGroupLogDestination(log), metrics_enabled=True,
            access_log_format=apigateway.AccessLogFormat.custom(ACCESS_LOG),
            logging_level=apigateway.MethodLoggingLevel.ERROR, throttling_rate_limit=1000, throttling_burst_limit=1000,
        ),
        default_cors_preflight_options=apigateway.CorsOptions(allow_origins=["http://front.test"]),
    )  # fmt: skip

    def integrated(**options: Any) -> apigateway.AwsIntegration:
        options = {"credentials_role": role, **options}
        path = f"endpoints/{endpoint}/invocations"
        return apigateway.AwsIntegration(
            service="runtime.sagemaker", path=path, options=apigateway.IntegrationOptions(**options)
        )

    by_status = [
        apigateway.IntegrationResponse(status_code="200", response_templates={"application/json": RESPONSE}),
        apigateway.IntegrationResponse(status_code="502", selection_pattern="4\\d{2}"),
    ]
    plain = [apigateway.IntegrationResponse(
        status_code="200",
        response_parameters={
            "method.response.header.Content-Type": "integration.response.header.Content-Type",
            "method.response.header.Note": f"integration.response.header.{ATTRIBUTES}",
        },
    )]  # fmt: skip
    typed = apigateway.MethodResponse(
        status_code="200",
        response_parameters={f"method.response.header.{name}": True for name in ("Content-Type", "Note")},
    )
    both = [typed, apigateway.MethodResponse(status_code="502")]
    api.root.add_resource("{user}").add_method(
        "GET", integrated(request_templates={"application/json": REQUEST}, integration_responses=by_status,
                          passthrough_behavior=apigateway.PassthroughBehavior.NEVER),
        authorization_type=apigateway.AuthorizationType.IAM, method_responses=both,
    )  # fmt: skip
    pictures = api.root.add_resource("pictures")
    note = "method.request.querystring.note"
    noted = integrated(
        integration_responses=plain, request_parameters={f"integration.request.header.{ATTRIBUTES}": note}
    )
    pictures.add_method("POST", noted, method_responses=both, request_parameters={note: False})
    function = lambda_.Function(
        stack, "Function", runtime=lambda_.Runtime.PYTHON_3_13, handler="index.handler",
        code=lambda_.Code.from_inline(HANDLER),
    )  # fmt: skip
    proxy = api.root.add_resource("function").add_resource("{proxy+}")
    proxy.add_method("ANY", apigateway.LambdaIntegration(function))
    made = dict(assertions.Template.from_stack(stack).to_json())
    del made["Rules"], made["Parameters"]  # they ask for the bootstrap stack
    return made


@pytest.fixture(scope="module")
def front(aws: LocalSageMaker, role: str) -> dict[str, str]:
    endpoint = aws.endpoint(aws.config(aws.model(aws.artifact("1"), role)), "echo")
    stack = aws.deploy("front", template(endpoint))
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack["Reasons"]
    outputs = [output["OutputValue"] for output in stack["Outputs"]]
    (url,) = [value for value in outputs if "execute-api" in value]
    return {"url": url.partition(str(aws.port))[2], "api": url.split("/")[-3]}


def lines(aws: LocalSageMaker, group: str) -> list[str]:
    groups = aws.logs.describe_log_groups()["logGroups"]
    (name,) = [each["logGroupName"] for each in groups if group in each["logGroupName"]] or [""]
    return [event["message"] for event in aws.logs.filter_log_events(logGroupName=name)["events"]] if name else []


def test_a_template_maps_a_request_to_an_endpoint_and_its_answer_back(
    aws: LocalSageMaker, front: dict[str, str]
) -> None:
    url = f"{front['url']}7?items=1%2C2"
    path = f"{front['api']}/*/GET/*"
    arn = "arn:aws:execute-api:us-east-1:000000000000:"
    allowed = {"Action": "execute-api:Invoke", "Resource": f"{arn}{path}"}
    denied = {
        **allowed,
        "Effect": "Deny",
        "Resource": [f"{arn}{front['api']}/prod/GET/{name}" for name in ("secret", "hidden*")],
    }
    caller, other = aws.user("caller", policy(allowed)), aws.user("other")
    held_back = aws.user("held-back", policy({**allowed, "Resource": "*"}, denied))
    answer = aws.send("GET", url, sign="execute-api", key=caller)
    assert (answer.status, answer.json(), answer.headers["Content-Type"]) == (200, [1, 2], "application/json"), (
        answer.data
    )
    for refused_one in (
        aws.send("GET", url),
        aws.send("GET", url, sign="execute-api", key=other),
        aws.send("GET", url, sign="sagemaker", key=caller),
        aws.send("GET", url, sign="execute-api", key=caller, region="eu-west-1"),
        aws.send("GET", f"{front['url']}other/place", sign="execute-api", key=caller),
        aws.send("GET", url.replace("/prod/", "/other/"), sign="execute-api", key=caller),
        *(
            aws.send("GET", f"{front['url']}{name}?items=1", sign="execute-api", key=held_back)
            for name in ("secret", "secret/", "/secret", "hidden%0Ax")
        ),
    ):
        assert refused_one.status == 403, refused_one.data
    assert aws.send("GET", url, sign="execute-api", key=caller, content_type="text/csv").status == 415
    assert any(line.endswith("200 arn:aws:iam::000000000000:user/caller") for line in lines(aws, "Log"))


def test_what_the_api_declares_as_binary_passes_as_it_is_and_all_else_as_text(
    aws: LocalSageMaker, front: dict[str, str]
) -> None:
    url = f"{front['url']}pictures"
    given = {"content_type": "image/jpeg", "accept": "image/jpeg"}
    answer = aws.send("POST", url, PICTURE, **given)
    assert (answer.status, answer.data, answer.headers["Content-Type"]) == (200, PICTURE, "image/jpeg")
    as_text = PICTURE.decode("utf-8", "replace").encode()
    assert aws.send("POST", url, PICTURE, **{**given, "content_type": "text/plain"}).data == as_text
    assert aws.send("POST", url, PICTURE, **{**given, "accept": "text/plain"}).data == as_text
    assert aws.send("POST", url, bytes(10 * 2**20 + 1), **given).status == 413


def test_parameters_are_mapped_to_headers_and_make_no_further_ones(aws: LocalSageMaker, front: dict[str, str]) -> None:
    url = f"{front['url']}pictures?note="
    assert aws.send("POST", f"{url}a%20b", b"x").headers["Note"] == "a b"
    assert aws.send("POST", f"{url}a%0D%0Aaccept%3A%20x", b"x").status == 500
    assert "Note" not in aws.send("POST", f"{front['url']}pictures", b"x").headers


def test_pages_of_other_sites_call_what_answers_options_only(aws: LocalSageMaker, front: dict[str, str]) -> None:
    asked = {"Origin": "http://front.test", "Access-Control-Request-Method": "POST"}
    preflight = aws.send("OPTIONS", f"{front['url']}pictures", **asked)
    assert (preflight.status, preflight.headers["Access-Control-Allow-Origin"]) == (204, "http://front.test")
    assert aws.send("POST", f"{front['url']}pictures", b"x", Origin="http://front.test").status == 200


def test_a_function_behind_an_api_is_called_if_its_policy_says_so(aws: LocalSageMaker, front: dict[str, str]) -> None:
    url = f"{front['url']}function/a/b"
    answer = aws.send("PUT", url, "dog")
    assert (answer.status, answer.json(), answer.headers["X-Seen"]) == (201, "dog", "/function/a/b")
    for body in ("broken", "malformed", "split"):
        answer = aws.send("PUT", url, body)
        assert (answer.status, answer.json()) == (502, {"message": "Internal server error"})
    (name,) = [each["FunctionName"] for each in aws.lambda_.list_functions()["Functions"]]
    statements = json.loads(aws.lambda_.get_policy(FunctionName=name)["Policy"])["Statement"]
    for statement in statements:
        aws.lambda_.remove_permission(FunctionName=name, StatementId=statement["Sid"])
    answer = aws.send("PUT", url, "dog")
    assert (answer.status, answer.json()) == (500, {"message": "Internal server error"})
    assert any("Invalid permissions on Lambda function" in line for line in lines(aws, "Execution-Logs"))


def test_requests_are_metrics(aws: LocalSageMaker, front: dict[str, str]) -> None:
    aws.send("POST", f"{front['url']}pictures", b"x")
    listed = aws.client("cloudwatch").list_metrics(Namespace="AWS/ApiGateway")["Metrics"]
    seen = {(each["MetricName"], len(each["Dimensions"])) for each in listed}
    assert {(name, number) for name in ("Count", "4XXError", "5XXError", "Latency") for number in (1, 2, 4)} <= seen


def test_a_change_takes_effect_with_the_next_deployment_and_outlives_the_server(
    aws: LocalSageMaker, front: dict[str, str]
) -> None:
    client, api = aws.client("apigateway"), {"restApiId": front["api"]}
    resources = client.get_resources(**api)["items"]
    (pictures,) = [{**api, "resourceId": each["id"]} for each in resources if each["path"] == "/pictures"]
    client.put_method(**pictures, httpMethod="GET", authorizationType="NONE")
    refused(client.create_deployment, "No integration defined for method", **api)
    client.put_integration(**pictures, httpMethod="GET", type="MOCK", requestTemplates={"application/json": "{}"})
    client.put_method_response(**pictures, httpMethod="GET", statusCode="200")
    mapped = {"application/json": "$context.stage $input.params('q')"}
    client.put_integration_response(**pictures, httpMethod="GET", statusCode="200", responseTemplates=mapped)
    aws.kill()
    aws.up()
    client = aws.client("apigateway")
    assert aws.send("GET", f"{front['url']}pictures").status == 403
    assert aws.send("POST", f"{front['url']}pictures", b"x").status == 200
    client.create_deployment(**api, stageName="prod")
    assert aws.send("GET", f"{front['url']}pictures?q=x").data == b"prod x"
    deployment = client.get_stage(**api, stageName="prod")["deploymentId"]
    refused(client.delete_deployment, "Active stages", **api, deploymentId=deployment)


def test_what_could_not_be_called_is_refused(aws: LocalSageMaker) -> None:
    client = aws.client("apigateway")
    api = {"restApiId": client.create_rest_api(name="refused")["id"]}
    root = {**api, "resourceId": client.get_resources(**api)["items"][0]["id"], "httpMethod": "POST"}
    refused(client.put_method, "there are no authorizers", **root, authorizationType="CUSTOM", authorizerId="a")
    client.put_method(**root, authorizationType="NONE")
    role = aws.role("front", trust("apigateway.amazonaws.com"))
    here = {"type": "AWS", "integrationHttpMethod": "POST", "credentials": role}
    of_endpoint = {**here, "uri": "arn:aws:apigateway:us-east-1:runtime.sagemaker:path/endpoints/e/invocations"}
    put = client.put_integration
    for message, wrong in (
        ("Role ARN must be specified", {**of_endpoint, "credentials": ""}),
        ("integrates functions", {**here, "uri": "arn:aws:apigateway:us-east-1:sqs:path/000000000000/queue"}),
        ("has no type 'HTTP_PROXY'", {**here, "type": "HTTP_PROXY", "uri": "http://127.0.0.1:1/"}),
        ("must be POST", {**of_endpoint, "integrationHttpMethod": "GET"}),
        ("Timeout should be", {**of_endpoint, "timeoutInMillis": 49}),
        ("Invalid mapping expression", {**of_endpoint, "requestParameters": {"integration.request.header.a": "b"}}),
        ("has no contentHandling", {**of_endpoint, "contentHandling": "CONVERT_TO_BINARY"}),
    ):
        refused(put, message, **root, **wrong)
    passing = {"Action": "apigateway:*", "Resource": "*"}
    asking = aws.client("apigateway", aws.user("passes-nothing", policy(passing)))
    refused(asking.put_integration, "iam:PassRole", **root, **of_endpoint)
    put(**root, **of_endpoint)
    client.put_method_response(**root, statusCode="200")
    client.put_integration_response(**root, statusCode="200")
    client.create_deployment(**api, stageName="s")
    answer = aws.send("POST", f"/_aws/execute-api/{api['restApiId']}/s/", b"x")
    assert answer.status == 200 and "not authorized" in answer.json()["Message"]  # the role may call nothing
    for operation, request in (
        ("update_rest_api", {**api, "patchOperations": []}),
        ("import_rest_api", {"body": b"{}"}),
        ("create_authorizer", {**api, "name": "a", "type": "TOKEN"}),
    ):
        refused(getattr(client, operation), "does not do this by apigateway", **request)
    refused(aws.client("apigatewayv2").get_apis, "does not do this by apigateway")


def test_keys_plans_validators_and_overrides_act(aws: LocalSageMaker) -> None:
    client = aws.client("apigateway")
    api = {"restApiId": client.create_rest_api(name="kept")["id"]}
    root = {**api, "resourceId": client.get_resources(**api)["items"][0]["id"], "httpMethod": "GET"}
    validator = client.create_request_validator(**api, name="v", validateRequestParameters=True)["id"]
    needed = {"requestParameters": {"method.request.querystring.q": True}, "requestValidatorId": validator}
    client.put_method(**root, authorizationType="NONE", apiKeyRequired=True, **needed)
    client.put_integration(**root, type="MOCK", requestTemplates={"application/json": "{}"})
    client.put_method_response(**root, statusCode="200")
    client.put_integration_response(**root, statusCode="200", responseTemplates={"application/json": "$context.stage"})
    client.create_deployment(**api, stageName="s")
    key = client.create_api_key(name="k", enabled=True)
    stages = [{"apiId": api["restApiId"], "stage": "s"}]
    plan = client.create_usage_plan(name="p", apiStages=stages, quota={"limit": 1, "period": "DAY"})["id"]
    client.create_usage_plan_key(usagePlanId=plan, keyId=key["id"], keyType="API_KEY")
    url = f"/_aws/execute-api/{api['restApiId']}/s/"
    assert aws.send("GET", f"{url}?q=1").status == 403
    assert aws.send("GET", f"{url}?q=1", x_api_key="another").status == 403
    assert aws.send("GET", f"{url}?q=1", x_api_key=key["value"]).data == b"s"
    assert aws.send("GET", f"{url}?q=1", x_api_key=key["value"]).status == 429
    other = client.create_usage_plan(name="o", apiStages=stages)["id"]
    again = client.create_api_key(name="o", enabled=True)
    client.create_usage_plan_key(usagePlanId=other, keyId=again["id"], keyType="API_KEY")
    assert aws.send("GET", url, x_api_key=again["value"]).status == 400


def test_what_users_write_holds_nobody_up(aws: LocalSageMaker) -> None:
    client = aws.client("apigateway")
    api = {"restApiId": client.create_rest_api(name="endless")["id"]}
    parent = client.get_resources(**api)["items"][0]["id"]
    uri = "arn:aws:apigateway:us-east-1:runtime.sagemaker:path/endpoints/e/invocations"
    to_endpoint = {"type": "AWS", "integrationHttpMethod": "POST", "uri": uri, "timeoutInMillis": 4000}
    to_endpoint["credentials"] = aws.role("endless", trust("apigateway.amazonaws.com"))
    endless = f"#set($t = '{'a' * 99}!')$t.matches('(a|aa)+')"
    for name, template, integration, pattern in (
        ("endless", endless, to_endpoint, ""),
        ("selects", "{}", {"type": "MOCK"}, "((((.?){99}){99}){99}){99}x"),
        ("plain", "{}", {"type": "MOCK"}, ""),
    ):
        made = client.create_resource(**api, parentId=parent, pathPart=name)["id"]
        method = {**api, "resourceId": made, "httpMethod": "GET"}
        client.put_method(**method, authorizationType="NONE")
        client.put_integration(**method, requestTemplates={"application/json": template}, **integration)
        client.put_method_response(**method, statusCode="200")
        mapped = {"responseTemplates": {"application/json": "$context.stage"}, "selectionPattern": pattern}
        client.put_integration_response(**method, statusCode="200", **mapped)
    client.create_deployment(**api, stageName="s")
    url = f"/_aws/execute-api/{api['restApiId']}/s/"
    with ThreadPoolExecutor(1) as threads:
        late, times = threads.submit(aws.send, "GET", f"{url}endless"), []
        while not late.done():
            began = time.monotonic()
            assert aws.send("GET", f"{url}plain").data == b"s"
            times.append(time.monotonic() - began)
    assert (late.result().status, late.result().json()) == (504, {"message": "Endpoint request timed out"})
    assert len(times) > 9 and statistics.median(times) < 5
    assert aws.send("GET", f"{url}selects").status == 500
    pattern = {"Type": "String", "Default": "a" * 99 + "!", "AllowedPattern": "(a|aa)+"}
    made = {"Parameters": {"P": pattern}, "Resources": {"T": {"Type": "AWS::SNS::Topic"}}}
    refused(aws.cloudformation.create_stack, "takes longer", StackName="e", TemplateBody=json.dumps(made))


def test_a_stack_makes_apis_with_the_rights_of_its_caller(aws: LocalSageMaker) -> None:
    stacks = {"Action": ["cloudformation:*", "apigateway:GET"], "Resource": "*"}
    made = {"Resources": {"Api": {"Type": "AWS::ApiGateway::RestApi", "Properties": {"Name": "a"}}}}
    key = aws.user("stacks-only", policy(stacks))
    assert "not authorized to perform: apigateway:POST" in aws.deploy("without", made, key=key)["Reasons"]
