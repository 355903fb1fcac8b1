"""Fleets as the records of endpoints hold them, and as DescribeEndpoint shows them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from emulator.platform.awsapi import Payload
from emulator.platform.errors import refuse
from emulator.platform.store import Record
from emulator.sagemaker.endpoints.fleet import Fleet


def of_config(config: Payload, models: Mapping[str, Record]) -> Payload:
    variants = [
        {
            "VariantName": variant["VariantName"],
            "Weight": variant["InitialVariantWeight"],
            # Of a serverless variant, how many environments are always up.
            "InstanceCount": variant.get(
                "InitialInstanceCount", variant.get("ServerlessConfig", {}).get("ProvisionedConcurrency", 0)
            ),
            "Variant": variant,
            "Model": models[variant["VariantName"]],
        }
        for variant in config["ProductionVariants"]
    ]
    spec = {"Id": uuid.uuid4().hex[:12], "EndpointConfigName": config["EndpointConfigName"], "Variants": variants}
    kept = {"DataCapture": "DataCaptureConfig", "Async": "AsyncInferenceConfig"}
    return spec | {name: config[member] for name, member in kept.items() if member in config}


def counts(spec: Payload) -> dict[str, int]:
    """How many instances a fleet has, by variant; of a serverless variant, how many invocations at a time."""
    return {
        variant["VariantName"]: _serverless(variant).get("MaxConcurrency", variant["InstanceCount"] or 1)
        for variant in spec["Variants"]
    }


def check_kind(current: Payload, spec: Payload) -> None:
    """Refuse to make a serverless endpoint of another one, as AWS does, and to change whether it is asynchronous."""
    becomes = any(map(_serverless, spec["Variants"])) and not any(map(_serverless, current["Variants"]))
    changes = ("Async" in current) != ("Async" in spec)
    refuse(changes, "The local AWS makes no asynchronous endpoint of another one, nor the opposite: create a new one.")
    refuse(becomes, "You cannot convert an instance-based endpoint to a serverless endpoint. Create another endpoint.")


def _serverless(variant: Payload) -> Payload:
    config: Payload = variant["Variant"].get("ServerlessConfig", {})
    return config


def retain_properties(current: Payload, spec: Payload, excluded: set[str]) -> None:
    live = {variant["VariantName"]: variant for variant in current["Variants"]}
    for variant in spec["Variants"]:
        for member, property_type in (("Weight", "DesiredWeight"), ("InstanceCount", "DesiredInstanceCount")):
            before = live.get(variant["VariantName"])
            sized = member == "Weight" or not (_serverless(variant) or (before and _serverless(before)))
            if before and sized and property_type not in excluded:
                variant[member] = before[member]


def with_desired(spec: Payload, desired: list[Payload]) -> Payload:
    variants = {variant["VariantName"]: dict(variant) for variant in spec["Variants"]}
    names = [change["VariantName"] for change in desired]
    refuse(len(set(names)) < len(names), f"Variant names must be unique: {', '.join(names)}.")
    for change in desired:
        name = change["VariantName"]
        refuse(name not in variants, f"Variant {name} not found. There are: {', '.join(variants)}.")
        sized = "DesiredInstanceCount" in change and _serverless(variants[name])
        refuse(sized, f"Variant {name} is serverless: it takes no DesiredInstanceCount.")
        none = not change.get("DesiredInstanceCount", 1) and "Async" not in spec
        refuse(none, f"Variant {name} needs a DesiredInstanceCount of at least 1: it is not asynchronous.")
        for member, target in (("DesiredInstanceCount", "InstanceCount"), ("DesiredWeight", "Weight")):
            variants[name][target] = change.get(member, variants[name][target])
    return {**spec, "Variants": list(variants.values())}


def summary(spec: Payload, fleet: Fleet | None) -> Payload:
    live = fleet.variants.get(spec["VariantName"]) if fleet is not None else None
    model, image = spec["Model"], spec["Model"]["PrimaryContainer"]["Image"]
    capacity: Payload = {
        "CurrentInstanceCount": len(live.in_service()) if live else 0,
        "DesiredInstanceCount": spec["InstanceCount"],
    }
    if config := _serverless(spec):
        capacity = {"CurrentServerlessConfig": config, "DesiredServerlessConfig": config}
    return {
        **capacity,
        "VariantName": spec["VariantName"],
        "DeployedImages": [{"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": model["CreationTime"]}],
        "CurrentWeight": live.weight if live else spec["Weight"],
        "DesiredWeight": spec["Weight"],
    }


def capture_summary(capture: Payload) -> Payload:
    on = capture.get("EnableCapture", True)
    return {
        "EnableCapture": on,
        "CaptureStatus": "Started" if on else "Stopped",
        "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
        "DestinationS3Uri": capture["DestinationS3Uri"],
        "KmsKeyId": capture.get("KmsKeyId", ""),
    }
