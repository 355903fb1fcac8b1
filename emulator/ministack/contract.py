"""Which version of MiniStack this package was written for, and every name of it that is used.

MiniStack gives no promise about any of these names. They are checked when the server starts, so that another version
ends in one clear message and not in a strange failure later; ``tests/integration`` holds the behaviour behind them.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PINNED_VERSION = "1.5.33"

#: name -> what it has to be: the parameters of a function, or a type
TOUCHED: dict[str, tuple[str, ...] | type] = {
    "ministack.app:_handle_execute_api_request": (),
    "ministack.app:_handle_lambda_url_request": (
        *("host", "path", "method", "headers", "body", "query_params", "source_ip"),
    ),
    "ministack.app:_handle_options_request": ("method", "path", "headers", "query_params", "request_id"),
    "ministack.app:_handle_post_body_shortcuts": (
        *("method", "path", "headers", "body", "query_params", "request_id"),
    ),
    "ministack.app:_handle_pre_body_request": ("method", "path", "headers", "query_params", "request_id"),
    "ministack.app:pin_signed_request": ("method", "raw_path", "query_params", "raw_headers", "handshake"),
    "ministack.app:_with_data_plane_headers": ("response", "request_id", "include_s3_id", "wildcard_cors"),
    "ministack.core.iam_actions:_BOTOCORE_SERVICE_MAP": dict,
    "ministack.core.iam_actions:_kms_key_id_from_ciphertext": ("ciphertext_b64",),
    "ministack.core.iam_actions:_match_rest_action": ("service", "method", "path", "query_params"),
    "ministack.core.iam_actions:_s3_batch_delete_targets": ("bucket", "body"),
    "ministack.core.iam_actions:s3_additional_checks": ("method", "path", "headers", "body", "query_params"),
    "ministack.services.lambda_svc:_resolve_name_and_qualifier": ("name_or_arn",),
    # requests: app.py
    "ministack.app:app": ("scope", "receive", "send"),
    "ministack.app:SERVICE_HANDLERS": dict,
    "ministack.app:SERVICE_REGISTRY": dict,
    "ministack.app:_get_module": ("name",),
    "ministack.app:_handle_special_data_plane_request": (
        *("method", "path", "headers", "body", "query_params", "request_id", "raw_path", "raw_query_string"),
        "client_ip",
    ),
    "ministack.app:_credential_failure": ("service", "iam_action", "request_id", "denied", "headers"),
    "ministack.app:_decompress_request_body": ("body", "headers"),
    "ministack.app:_dispatch_service_request": ("method", "path", "headers", "body", "query_params", "request_id"),
    "ministack.app:_extract_s3_vhost_bucket": ("host",),
    "ministack.app:_is_ecr_registry_path": ("path",),
    "ministack.app:_parse_execute_api_url": ("host", "path"),
    "ministack.app:_parse_lambda_url": ("host", "path"),
    "ministack.app:_request_account_scope": ("access_key_id",),
    "ministack.app:_routing_params": ("method", "path", "headers", "body", "query_params"),
    "ministack.app:_s3_cors_target": ("host", "path", "path_style"),
    "ministack.app:_state_map": dict,
    "ministack.app:detect_service": ("method", "path", "headers", "query_params"),
    "ministack.core.router:SERVICE_PATTERNS": dict,
    "ministack.core.router:extract_access_key_id": ("headers", "query_params"),
    "ministack.core.sigv4:decode_header_value": ("value",),
    "ministack.core.concurrency:run_reentrant": ("fn", "args", "thread_name"),
    "ministack.core.responses:error_response_json": (
        *("code", "message", "status", "extra", "message_key", "content_type"),
    ),
    "ministack.core.responses:error_response_xml": ("code", "message", "status", "namespace"),
    "ministack.core.responses:get_account_id": (),
    "ministack.core.responses:get_region": (),
    "ministack.core.responses:request_scope": ("account_id", "region"),
    "ministack.core.responses:set_request_account_id": (),
    "ministack.core.responses:set_request_region": (),
    # IAM
    "ministack.core.iam_actions:SERVICE_TO_IAM_NAMESPACE": dict,
    "ministack.core.iam_actions:_DENIED_CODES": dict,
    "ministack.core.iam_actions:extract_iam_action": (
        *("service", "method", "path", "headers", "body", "query_params"),
    ),
    "ministack.core.iam_actions:extract_resource_arn": (
        *("service", "method", "path", "headers", "body", "query_params", "region", "account_id"),
    ),
    "ministack.core.iam_actions:_S3_BUCKET_QUERY_ACTIONS": dict,
    "ministack.core.iam_actions:_S3_OBJECT_QUERY_ACTIONS": dict,
    "ministack.core.iam_actions:_S3_QUERY_ACTIONS": dict,
    "ministack.core.iam_actions:_load_botocore_model": ("botocore_service",),
    "ministack.core.iam_actions:_s3_action": ("method", "path", "query_params"),
    "ministack.core.iam_evaluator:AuthError": type,
    "ministack.core.iam_evaluator:ResolvedCredential": type,
    "ministack.core.iam_evaluator:authenticate": ("access_key_id", "account_id"),
    "ministack.core.iam_evaluator:check_credentials": ("access_key_id", "service"),
    "ministack.core.iam_evaluator:caller_arn": (),
    "ministack.core.iam_evaluator:evaluate_resource_policy": ("doc", "ctx", "service", "named_only", "direct_only"),
    "ministack.core.iam_evaluator:find_iam_access_key_account": ("access_key_id",),
    "ministack.core.iam_actions:s3_access_point_resources": ("resource_arn",),
    "ministack.core.iam_actions:s3_service_context": ("iam_action", "query_params", "path", "headers"),
    "ministack.core.iam_evaluator:pin_request_caller": ("headers", "query_params"),
    "ministack.core.iam_evaluator:pin_request_origin": ("source_ip", "secure_transport"),
    "ministack.core.iam_evaluator:pin_signed_body": ("body",),
    "ministack.core.iam_evaluator:pin_signed_request": (
        *("method", "raw_path", "query_params", "raw_headers", "handshake"),
    ),
    "ministack.core.iam_evaluator:_anonymous": object,
    "ministack.core.iam_evaluator:_verified_key": object,
    "ministack.core.iam_evaluator:_resource_policy": ("service", "resource_arn"),
    "ministack.core.iam_evaluator:_is_root_key": ("access_key_id",),
    "ministack.core.iam_evaluator:is_root_access_key": ("access_key_id",),
    "ministack.core.iam_evaluator:EvalContext": type,
    "ministack.core.iam_evaluator:resolve_principal": ("access_key_id", "account_id", "credential"),
    "ministack.core.iam_evaluator:enforce": (
        *("access_key_id", "iam_action", "service", "region", "resource_arn", "service_context"),
    ),
    "ministack.core.iam_evaluator:evaluate_trust_policy": ("trust_doc", "caller_arn", "ctx"),
    "ministack.services.iam:_roles": object,
    "ministack.services.sts:register_session": ("access_key", "session"),
    # CloudFormation
    "ministack.services.cloudformation:_change_sets": object,
    "ministack.services.cloudformation:_exports": object,
    "ministack.services.cloudformation:_stack_events": object,
    "ministack.services.cloudformation:_stacks": object,
    "ministack.services.cloudformation.engine:_evaluate_conditions": ("template", "params"),
    "ministack.services.cloudformation.provisioners:_REPLACING_PROPERTIES": dict,
    "ministack.services.cloudformation.provisioners:_RESOURCE_HANDLERS": dict,
    "ministack.services.cloudformation.provisioners:_S3_BUCKET_CONFIGURATIONS": tuple,
    "ministack.services.cloudformation.provisioners:_STACK_TAG_PROPERTY": dict,
    "ministack.services.cloudformation.stacks:_add_event": (
        *("stack_id", "stack_name", "logical_id", "resource_type", "status", "reason", "physical_id"),
        "detailed_status",
    ),
    "ministack.services.cloudformation.stacks:_create_stack_task_in_region": ("coro", "stack", "stack_id"),
    "ministack.services.cloudformation.stacks:_delete_stack_async": (
        *("stack_name", "stack_id", "retain_resources", "force"),
    ),
    "ministack.services.cloudformation.stacks:_deploy_stack_async": (
        *("stack_name", "stack_id", "template", "param_values", "disable_rollback", "tags", "is_update"),
        *("previous_stack", "retain_except_on_create", "imports"),
    ),
    "ministack.services.cloudformation.stacks:_failed_operation": (
        *("is_update", "previous_stack", "created", "failed_update", "failed_logical_id", "replaced_ids"),
        *("cancelled", "template", "param_values", "retain_except_on_create", "stack_tags", "previous_tags"),
        "imports",
    ),
    "ministack.services.cloudformation.stacks:_provision_resource": (
        *("resource_type", "logical_id", "props", "stack_name"),
    ),
    "ministack.services.cloudformation.stacks:_resolve_stack_outputs": (
        *("outputs_defs", "conditions", "resources", "param_values", "mappings", "stack_name", "stack_id"),
    ),
    "ministack.services.cloudformation.stacks:_roll_back_operation": (
        *("stack_name", "stack_id", "stack", "operation", "reason_override"),
    ),
    "ministack.services.cloudformation.stacks:_runs_on_worker_thread": ("resource_type",),
    "ministack.services.cloudformation.changesets:_deploy_stack_async": (),
    "ministack.services.cloudformation.changesets:_find_change_set": ("cs_name", "stack_name"),
    "ministack.services.cloudformation.provisioners:_delete_resource": (
        *("resource_type", "physical_id", "props", "stack_name", "logical_id"),
    ),
    "ministack.services.cloudformation.provisioners:_provision_resource": (
        *("resource_type", "logical_id", "props", "stack_name"),
    ),
    "ministack.services.cloudformation.provisioners:_update_resource": (
        *("resource_type", "physical_id", "old_props", "new_props", "stack_name", "logical_id", "old_attrs"),
    ),
    "ministack.services.cloudformation.handlers:_ACTION_HANDLERS": dict,
    "ministack.services.cloudformation.handlers:_imported_export_names": ("stack", "stack_name"),
    "ministack.services.cloudformation.handlers:_p": ("params", "key", "default"),
    "ministack.services.cloudformation.handlers:_resolve_stack": ("stack_name",),
    "ministack.services.cloudformation.handlers:_xml": ("status", "root_tag", "inner"),
    "ministack.services.cloudformation.handlers:_delete_stack_async": (),
    "ministack.services.cloudformation.handlers:_deploy_stack_async": (),
    # Lambda
    "ministack.core.lambda_runtime:Worker._drain_stderr_bounded": (
        *("self", "first_line_wait", "idle_confirm", "hard_cap"),
    ),
    "ministack.core.lambda_runtime:_detect_runtime_binary": ("runtime",),
    "ministack.core.lambda_runtime:reset": (),
    "ministack.core.lambda_runtime:subprocess": object,
    "ministack.services.lambda_svc:_ACCOUNT_CONCURRENCY_CAP": int,
    "ministack.services.lambda_svc:_FUNCTION_URL_TEXT_TYPES": tuple,
    "ministack.services.lambda_svc:_function_url_cors_headers": ("cfg", "request_headers"),
    "ministack.services.lambda_svc:_functions": object,
    "ministack.services.lambda_svc:_get_account_settings": (),
    "ministack.services.lambda_svc:_prune_orphan_code_blobs": ("referenced",),
    "ministack.services.lambda_svc:_put_function_concurrency": ("func_name", "data"),
    "ministack.services.lambda_svc:_func_arn": ("name",),
    "ministack.services.lambda_svc:_get_provisioned_concurrency": ("func_name", "qualifier"),
    "ministack.services.lambda_svc:_put_provisioned_concurrency": ("func_name", "qualifier", "data"),
    "ministack.services.lambda_svc:_reserved_concurrency": ("func", "config"),
    "ministack.services.lambda_svc:handle_function_url_request": (
        *("url_id", "method", "path", "headers", "body", "query_params", "resolved", "source_ip"),
    ),
    "ministack.services.lambda_svc:resolve_function_url": ("url_id",),
    # CodeBuild
    "ministack.services.codebuild:_builds": object,
    "ministack.services.codebuild:_projects": object,
    "ministack.services.codebuild:_start_build": ("data",),
    # S3
    "ministack.services.s3:_bucket_acl": object,
    "ministack.services.s3:_bucket_encryption": object,
    "ministack.services.s3:_bucket_logging_config": object,
    "ministack.services.s3:_bucket_notifications": object,
    "ministack.services.s3:_bucket_policies": object,
    "ministack.services.s3:_buckets": object,
    "ministack.services.s3:_delete_bucket": ("name",),
    "ministack.services.s3:_delete_bucket_encryption": ("name",),
    "ministack.services.s3:_error": ("code", "message", "status", "resource", "extra", "headers"),
    "ministack.services.s3:_check_sse_c_copy_source": ("headers", "src_obj"),
    "ministack.services.s3:_get_object": ("bucket_name", "key", "headers", "query_params"),
    "ministack.services.s3:_parse_bucket_key": ("path", "headers"),
    "ministack.services.s3:handle_request": (
        *("method", "path", "headers", "body", "query_params", "signed_path", "enforce_bucket_region", "internal"),
        *("access_point_region", "access_point"),
    ),
    "ministack.services.s3:_put_bucket_encryption": ("name", "body"),
    "ministack.services.s3:_put_bucket_logging": ("name", "body"),
    "ministack.services.s3:_put_object": ("bucket_name", "key", "body", "headers"),
    "ministack.services.s3:fromstring": (),
    "ministack.services.s3:_resolve_sse_write_headers": ("headers", "bucket_name"),
    # the names and keys of others
    "ministack.services.cloudwatch:_alarms": object,
    "ministack.services.ecr:_repositories": object,
    "ministack.services.kms:_check_key_state": ("rec",),
    "ministack.services.kms:_resolve_key": ("key_id_or_arn",),
    # EC2
    "ministack.services.ec2:_error": ("code", "message", "status"),
    "ministack.services.ec2:_instances": object,
    "ministack.services.ec2:_resolve_launch_template_data": ("spec",),
    "ministack.services.ec2:_tags": object,
    "ministack.services.ec2:_xml": ("status", "root_tag", "inner"),
    "ministack.services.iam:_lookup_instance_profile": ("name", "arn"),
    # S3
    "ministack.services.s3:_parse_multipart_form": ("content_type", "body"),
    "ministack.services.s3:_post_form_access_key_id": ("parts",),
    "ministack.services.s3:_verify_presigned_sigv4": ("method", "path", "headers", "query_params"),
    "ministack.services.s3:cors_response_headers": ("bucket_name", "method", "headers"),
    # state
    "ministack.services.s3:_object_disk_path": ("bucket", "key", "account_id"),
    "ministack.services.s3:os": object,
    "ministack.services.s3:_read_body": ("bucket_name", "key", "obj"),
    "ministack.core.persistence:_json_default": ("obj",),
    "ministack.core.persistence:_json_object_hook": ("obj",),
    "ministack.services.cloudwatch:_metrics": object,
    "ministack.services.cloudwatch_logs:_log_groups": object,
}


class ContractError(RuntimeError):
    """MiniStack is not what this package was written for; the message says in which way."""


def check_version() -> None:
    """Compare the installed MiniStack with the pinned one, without importing it.

    Raises
    ------
    ContractError
    """
    try:
        installed = version("ministack")
    except PackageNotFoundError:
        raise ContractError(
            f"MiniStack is not installed: the local AWS needs ministack=={PINNED_VERSION} (see requirements.txt)."
        ) from None
    if installed != PINNED_VERSION:
        raise ContractError(
            f"MiniStack {installed} is installed, but the local AWS was written for {PINNED_VERSION}: install "
            f"ministack=={PINNED_VERSION}, or adapt emulator/ministack to {installed} and change PINNED_VERSION."
        )


def check_names(touched: Iterable[tuple[str, Any]] = tuple(TOUCHED.items())) -> None:
    """Import MiniStack and look at every name that is used.

    Raises
    ------
    ContractError
        Lists all that is missing or different.
    """
    problems = [problem for name, expected in touched if (problem := _problem(name, expected))]
    if problems:
        heading = f"MiniStack {version('ministack')} is not what emulator/ministack was made for:"
        raise ContractError("\n  ".join([heading, *problems]))


def _problem(name: str, expected: tuple[str, ...] | type) -> str | None:
    module_name, _, attributes = name.partition(":")
    try:
        value: Any = importlib.import_module(module_name)
        for attribute in attributes.split("."):
            value = getattr(value, attribute)
    except (ImportError, AttributeError) as error:
        return f"{name} is missing ({error})"
    if isinstance(expected, type):
        return None if isinstance(value, expected) else f"{name} is a {type(value).__name__}, not a {expected.__name__}"
    if not callable(value):
        return f"{name} is a {type(value).__name__}, not a function"
    parameters = tuple(inspect.signature(value).parameters)
    # Only the names in common count when nothing is said about the parameters.
    if expected and parameters != expected:
        return f"{name} takes ({', '.join(parameters)}), not ({', '.join(expected)})"
    return None
