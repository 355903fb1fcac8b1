"""Which version of MiniStack this package was written for, and every name of it that is used.

MiniStack gives no promise about any of these names. They are checked when the server starts, so that another version
ends in one clear message and not in a strange failure later; ``tests/integration`` holds the behaviour behind them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PINNED_VERSION = "1.5.33"

#: A module of MiniStack and names of it, on each line.
_TOUCHED = """
ministack.app SERVICE_HANDLERS SERVICE_REGISTRY _credential_failure _decompress_request_body
ministack.app _extract_s3_vhost_bucket _get_module _handle_execute_api_request _handle_lambda_url_request
ministack.app _handle_options_request _handle_post_body_shortcuts _handle_pre_body_request
ministack.app _handle_special_data_plane_request _is_ecr_registry_path _parse_execute_api_url _parse_lambda_url
ministack.app _request_account_scope _routing_params _s3_cors_target _state_map _with_data_plane_headers app
ministack.app detect_service pin_signed_request
ministack.core.concurrency run_reentrant
ministack.core.iam_actions SERVICE_TO_IAM_NAMESPACE _DENIED_CODES _S3_BUCKET_QUERY_ACTIONS
ministack.core.iam_actions _S3_OBJECT_QUERY_ACTIONS _S3_QUERY_ACTIONS _kms_key_id_from_ciphertext
ministack.core.iam_actions _s3_action _s3_batch_delete_targets _s3_source_object
ministack.core.iam_actions extract_iam_action extract_resource_arn s3_access_point_resources s3_additional_checks
ministack.core.iam_actions s3_service_context
ministack.core.iam_evaluator AuthError EvalContext ResolvedCredential _anonymous _is_root_key
ministack.core.iam_evaluator _resolve_condition_key _resource_policy
ministack.core.iam_evaluator _verified_key authenticate caller_arn check_credentials enforce evaluate_resource_policy
ministack.core.iam_evaluator evaluate_trust_policy find_iam_access_key_account is_root_access_key pin_request_caller
ministack.core.iam_evaluator pin_request_origin pin_signed_body pin_signed_request resolve_credential resolve_principal
ministack.core.lambda_runtime Worker._drain_stderr_bounded _detect_runtime_binary reset subprocess
ministack.core.persistence _json_default _json_object_hook
ministack.core.responses _account_from_sts_session error_response_json error_response_xml get_account_id get_region
ministack.core.responses request_scope set_request_account_id set_request_region
ministack.core.router SERVICE_PATTERNS extract_access_key_id
ministack.core.sigv4 decode_header_value presigned_request_is_expired
ministack.services.cloudformation _change_sets _exports _stack_events _stacks
ministack.services.cloudformation.changesets _deploy_stack_async _find_change_set
ministack.services.cloudformation.engine _evaluate_conditions
ministack.services.cloudformation.handlers _ACTION_HANDLERS _delete_stack_async _deploy_stack_async
ministack.services.cloudformation.handlers _imported_export_names _p _resolve_stack _xml
ministack.services.cloudformation.provisioners _REPLACING_PROPERTIES _RESOURCE_HANDLERS _S3_BUCKET_CONFIGURATIONS
ministack.services.cloudformation.provisioners _STACK_TAG_PROPERTY _delete_resource _provision_resource
ministack.services.cloudformation.provisioners _update_resource
ministack.services.cloudformation.stacks _add_event _create_stack_task_in_region _delete_stack_async
ministack.services.cloudformation.stacks _deploy_stack_async _failed_operation _provision_resource
ministack.services.cloudformation.stacks _resolve_stack_outputs _roll_back_operation _runs_on_worker_thread
ministack.services.cloudwatch _alarms _metrics
ministack.services.cloudwatch_logs _log_groups
ministack.services.codebuild _builds _projects _start_build
ministack.services.ec2 _error _instances _resolve_launch_template_data _tags _xml
ministack.services.ecr _repositories
ministack.services.iam _lookup_instance_profile _roles
ministack.services.kms _check_key_state _resolve_key
ministack.services.lambda_svc _ACCOUNT_CONCURRENCY_CAP _FUNCTION_URL_TEXT_TYPES _fetch_code_from_s3 _func_arn
ministack.services.lambda_svc _function_url_cors_headers
ministack.services.lambda_svc _functions _get_account_settings _get_provisioned_concurrency _prune_orphan_code_blobs
ministack.services.lambda_svc _put_function_concurrency _put_provisioned_concurrency _reserved_concurrency
ministack.services.lambda_svc _resolve_name_and_qualifier handle_function_url_request resolve_function_url
ministack.services.s3 _bucket_encryption _bucket_logging_config _bucket_notifications _bucket_policies
ministack.services.s3 _buckets _check_sse_c_copy_source _delete_bucket _delete_bucket_encryption _error _get_object
ministack.services.s3 _get_object_data _object_disk_path _parse_bucket_key _parse_multipart_form
ministack.services.s3 _post_form_access_key_id
ministack.services.s3 _put_bucket_encryption _put_bucket_logging _put_object _read_body _resolve_sse_write_headers
ministack.services.s3 _verify_presigned_sigv4 cors_response_headers fromstring handle_request os
ministack.services.secretsmanager _resolve resolve_secret_string
ministack.services.ssm _lookup_parameter _parameter_history resolve_parameter_value
ministack.services.sts _sessions register_session
"""
#: ``module:name``, or ``module:name.attribute``.
TOUCHED = tuple(f"{module}:{name}" for module, *names in map(str.split, _TOUCHED.split("\n")[1:-1]) for name in names)


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


def check_names(touched: Iterable[str] = TOUCHED) -> None:
    """Import MiniStack and look for every name that is used.

    Raises
    ------
    ContractError
        Lists all that is missing.
    """
    missing = [f"{name} is missing ({error})" for name in touched if (error := _error(name))]
    if missing:
        heading = f"MiniStack {version('ministack')} is not what emulator/ministack was made for:"
        raise ContractError("\n  ".join([heading, *missing]))


def _error(name: str) -> str | None:
    module, _, attributes = name.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for attribute in attributes.split("."):
            value = getattr(value, attribute)
    except (ImportError, AttributeError) as error:
        return str(error)
    return None
