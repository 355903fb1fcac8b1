"""The services that the local AWS has; of MiniStack's others it answers for none.

MiniStack's services call each other with all rights: a state machine or a pipeline does what its author may not. What
the services of this list do is put to IAM by the modules beside this one; the rest is refused. So are operations by
which a service of the list acts later without asking anybody, and sessions with rules of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ministack import app
from ministack.services.cloudformation import provisioners

from emulator.ministack.door import operations

#: By MiniStack's name; the last line is ours.
SERVICES = frozenset(
    {
        *(
            "apigateway",
            "cloudformation",
            "codebuild",
            "dynamodb",
            "ec2",
            "ecr",
            "events",
            "iam",
            "kms",
            "lambda",
            "logs",
        ),
        *("monitoring", "s3", "sns", "ssm", "sts", "tagging"),
        *("application-autoscaling", "sagemaker", "sagemaker-runtime", "service-quotas"),
    }
)
#: In the names of CloudFormation's types, in lower case, beside those above. ``AWS::CDK`` is metadata.
_NAMESPACES = SERVICES | {"applicationautoscaling", "cdk", "cloudwatch"}
#: What is refused: ends of the path, parameters and operations.
REFUSED = frozenset(
    {
        *("event-source-mappings", "Subscribe", "PutSubscriptionFilter", "PutDestination", "CreateDelivery"),
        *("StartQuery", "TestMetricFilter"),
        *("DeploymentMode", "GetFederationToken", "GetSessionToken", "TagResources", "UntagResources"),
    }
)
_TYPES = frozenset(
    {
        *(
            "AWS::Events::EventBus",
            "AWS::Lambda::EventSourceMapping",
            "AWS::Logs::SubscriptionFilter",
        ),
        *("AWS::DynamoDB::GlobalTable", "AWS::SNS::Subscription"),
    }
)
_OF_APIS = ("RestApi", "Deployment", "Stage", "Model", "RequestValidator", "ApiKey", "UsagePlan")
_OF_BUCKETS = (
    *("BucketCors", "BucketEncryption", "BucketLifecycle", "BucketOwnershipControls", "BucketPolicy"),
    *("BucketTagging", "ObjectTagging", "PublicAccessBlock"),
)
#: Their requests have no name of an operation.
_OF_PATHS = ("apigateway", "s3")
#: All that a service does here: REST APIs without authorizers and domains, rules with a schedule, tables that neither
#: import nor export nor stream, and buckets that serve no sites, notify nobody and are not replicated or reported on.
ONLY = {
    "events": {
        *("PutRule", "DeleteRule", "DescribeRule", "ListRules", "EnableRule", "DisableRule", "PutTargets"),
        *("RemoveTargets", "ListTargetsByRule", "ListRuleNamesByTarget", "TagResource", "UntagResource"),
        "ListTagsForResource",
    },
    "apigateway": {
        *("CreateRestApi", "CreateResource", "PutMethod", "PutMethodResponse", "PutIntegration"),
        *("PutIntegrationResponse", "CreateDeployment", "CreateStage", "CreateModel", "CreateRequestValidator"),
        *("CreateApiKey", "CreateUsagePlan", "CreateUsagePlanKey", "GetAccount", "GetMethod", "GetIntegration"),
        *("GetResources", "GetResource", "GetMethodResponse", "GetIntegrationResponse", "GetUsagePlanKeys"),
        *(f"Get{name}{s}" for name in _OF_APIS for s in ("", "s")),
        *(f"Delete{name}" for name in (*_OF_APIS, "Resource", "Method", "Integration", "UsagePlanKey")),
    },
    "dynamodb": {
        *("CreateTable", "DeleteTable", "DescribeTable", "ListTables", "UpdateTimeToLive", "DescribeTimeToLive"),
        *("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan"),
        *("TagResource", "UntagResource", "ListTagsOfResource"),
    },
    "s3": {
        *("CreateBucket", "DeleteBucket", "HeadBucket", "ListBuckets", "GetBucketLocation", "PutBucketAcl"),
        *("GetObject", "HeadObject", "PutObject", "CopyObject", "DeleteObject", "DeleteObjects", "RestoreObject"),
        *("ListObjects", "ListObjectsV2", "ListObjectVersions", "GetObjectAttributes", "PutObjectAcl"),
        *("CreateMultipartUpload", "UploadPart", "UploadPartCopy", "CompleteMultipartUpload"),
        *("AbortMultipartUpload", "ListMultipartUploads", "ListParts", "PutBucketAccelerateConfiguration"),
        *("ListObjectAnnotations", "PutBucketLogging", "PutBucketVersioning"),
        *(f"{verb}ObjectAnnotation" for verb in ("Get", "Put", "Delete")),
        *(f"{verb}Object{what}" for verb in ("Get", "Put") for what in ("LegalHold", "LockConfiguration", "Retention")),
        *(f"{verb}{what}" for verb in ("Get", "Put", "Delete") for what in _OF_BUCKETS),
        *(f"GetBucket{what}" for what in ("AccelerateConfiguration", "Acl", "Logging", "Notification", "Replication")),
        *("GetBucketVersioning", "GetBucketWebsite", "GetObjectAcl"),
    },
}


def install() -> None:
    """Take away what is not here; call it before anything else stands before a service."""
    for name in set(app.SERVICE_HANDLERS) - SERVICES:
        del app.SERVICE_HANDLERS[name]
    for kind in list(provisioners._RESOURCE_HANDLERS):
        if kind in _TYPES or (kind.startswith("AWS::") and kind.split("::")[1].lower() not in _NAMESPACES):
            del provisioners._RESOURCE_HANDLERS[kind]


def missing(
    service: str, method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]
) -> str | None:
    """Say why nothing here answers a request."""
    if service not in SERVICES:
        return f"The local AWS has no {service}; docs/local-aws.md says what it has."
    named: Any = ()
    if service == "lambda" and method == "POST":
        named = [path.rstrip("/").rpartition("/")[2]]
    elif only := ONLY.get(service):
        route = operations.route(service, method, path, query, headers) if service in _OF_PATHS else None
        if service == "s3" and route is None:
            return None  # which is no operation of S3's
        name = route or headers.get("x-amz-target", "").rpartition(".")[2] or f"{method} {path}"
        return None if name in only else f"The local AWS does not do this by {service}: {name}."
    elif service in ("logs", "tagging"):
        named = [headers.get("x-amz-target", "").rpartition(".")[2]]
    elif service == "cloudformation":
        named = {**query, **operations.form(body)}
    elif service in ("sns", "sts"):
        named = {**query, **operations.form(body)}.get("Action", [])
    asked = REFUSED.intersection(named)
    return f"The local AWS does not do this by {service}: {', '.join(asked)}." if asked else None
