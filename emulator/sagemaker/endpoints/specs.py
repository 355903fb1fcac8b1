"""The fleets in an endpoint's record: made from a configuration, changed on request, and shown by DescribeEndpoint."""

from __future__ import annotations

import time
import uuid

from emulator.platform.awsapi import Payload
from emulator.platform.errors import refuse
from emulator.platform.store import Record
from emulator.sagemaker.endpoints.fleet import Fleet
from emulator.sagemaker.models import containers


def new_spec(config: Record, models: list[Record]) -> Payload:
    """A fleet of a configuration; `models` are those of its variants, in the same order."""
    variants = [
        {
            "VariantName": variant["VariantName"],
            "Weight": variant["InitialVariantWeight"],
            "InstanceCount": variant["InitialInstanceCount"],
            "Variant": variant,
            "Model": model,
        }
        for variant, model in zip(config["ProductionVariants"], models, strict=True)
    ]
    made = {"Id": uuid.uuid4().hex[:12], "CreationTime": time.time()}
    return {**made, "EndpointConfigName": config["EndpointConfigName"], "Variants": variants}


def retain_properties(current: Payload, spec: Payload, excluded: set[str]) -> None:
    """Carry instance counts and weights of variants with the same name over to a new fleet."""
    live = {variant["VariantName"]: variant for variant in current["Variants"]}
    for variant in spec["Variants"]:
        for member, property_type in (("Weight", "DesiredWeight"), ("InstanceCount", "DesiredInstanceCount")):
            if variant["VariantName"] in live and property_type not in excluded:
                variant[member] = live[variant["VariantName"]][member]


def with_desired(spec: Payload, desired: list[Payload]) -> Payload:
    """A fleet with other weights and capacities; what cannot be is refused."""
    variants = {variant["VariantName"]: dict(variant) for variant in spec["Variants"]}
    for change in desired:
        name = change["VariantName"]
        refuse(name not in variants, f"Variant {name} not found. There are: {', '.join(variants)}.")
        none = "ServerlessUpdateConfig" in change or change.get("DesiredInstanceCount", 1) < 1
        refuse(none, f"Variant {name} needs a DesiredInstanceCount of at least 1.")
        for member, target in (("DesiredInstanceCount", "InstanceCount"), ("DesiredWeight", "Weight")):
            variants[name][target] = change.get(member, variants[name][target])
    return {**spec, "Variants": list(variants.values())}


def summary(spec: Payload, fleet: Fleet | None) -> Payload:
    """A variant as DescribeEndpoint shows it."""
    live = fleet.variants.get(spec["VariantName"]) if fleet is not None else None
    model = spec["Model"]
    return {
        "VariantName": spec["VariantName"],
        "DeployedImages": [
            {"SpecifiedImage": c["Image"], "ResolvedImage": c["Image"], "ResolutionTime": model["CreationTime"]}
            for c in containers(model)
            if "Image" in c
        ],
        "CurrentWeight": live.weight if live else spec["Weight"],
        "DesiredWeight": spec["Weight"],
        "CurrentInstanceCount": live.healthy_count if live else 0,
        "DesiredInstanceCount": spec["InstanceCount"],
    }
