"""What CloudFormation refuses of a template and its parameters before it makes anything, and MiniStack takes."""

from __future__ import annotations

import contextlib
import copy
import graphlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ministack.services.cloudformation import changesets, engine, handlers, provisioners, stacks

from emulator.ministack.cloudformation import schemas
from emulator.ministack.patching import around

_WORDS = tomllib.loads(Path(__file__).with_name("template.toml").read_text())
_TRANSFORM = "AWS::LanguageExtensions"


def install() -> None:
    for module in (handlers, changesets):
        around(module, "_apply_transforms", _apply_transforms)
        around(module, "validate_template_support", _validate)
    for module in (engine, handlers, changesets):
        around(module, "_resolve_parameters", _resolve_parameters)
    around(provisioners, "_check_nested_stack_capabilities", _check_nested)
    around(stacks, "_validation_errors", _validation_errors)


def _resolve_parameters(
    inner: Callable[..., Any], template: Any, provided: list[dict[str, Any]], previous: Any = None
) -> Any:
    declared, given = template.get("Parameters") or {}, {each["Key"]: each for each in provided}
    if foreign := ", ".join(name for name in given if name not in declared):
        raise ValueError(f"Parameters: [{foreign}] do not exist in the template")
    if new := [name for name, each in given.items() if each.get("UsePreviousValue") and name not in (previous or {})]:
        rule = "Cannot specify usePreviousValue as true for a parameter key not in the previous template"
        raise ValueError(f"Invalid input for parameter key {new[0]}. {rule}")
    if lacking := ", ".join(name for name, of in declared.items() if name not in given and "Default" not in of):
        raise ValueError(f"Parameters: [{lacking}] must have values")
    return inner(template, provided, previous)


def _check_nested(inner: Callable[..., None], parent: str, template: Any) -> None:
    inner(parent, template)
    handlers.validate_template_support(template, {})


def _apply_transforms(inner: Callable[..., Any], template: Any, *more: Any) -> Any:
    declared = engine.declared_transforms(template)
    resources = [each for each in (template.get("Resources") or {}).values() if isinstance(each, dict)]
    if _TRANSFORM not in declared and any(isinstance(each.get("DeletionPolicy"), dict) for each in resources):
        raise ValueError("Every DeletionPolicy member must be a string.")
    if foreign := [name for name in declared if name != _TRANSFORM]:
        reason = f"The local AWS has no transform {foreign[0]}, but {_TRANSFORM} and Fn::Transform with AWS::Include."
        return engine._TransformFailed(template, f"{reason} Write the resources that it makes.")
    return inner(template, *more)


def _validate(inner: Callable[..., None], template: Any, conditions: Mapping[str, bool], **more: Any) -> None:
    inner(template, conditions, **more)
    if template.get("Transform"):
        return  # ValidateTemplate's: it applies none
    resources = template.get("Resources")
    if unknown := sorted(template.keys() - set(_WORDS["sections"])):
        raise ValueError(f"Invalid template property or properties [{', '.join(unknown)}]")
    if not resources:
        raise ValueError("Template format error: At least one Resources member must be defined.")
    for name, resource in resources.items():
        if "Type" not in resource or not str(name).isalnum():
            rule = "Every Resources object must have an alphanumeric name and contain a Type member."
            raise ValueError(f"Template format error: [/Resources/{name}] {rule}")
        if unknown := sorted(resource.keys() - set(_WORDS["attributes"])):
            raise ValueError(f"Invalid template resource property '{unknown[0]}'")
        policy = resource.get("DeletionPolicy")  # with AWS::LanguageExtensions it may be what a parameter says
        if policy and not isinstance(policy, dict) and str(policy) not in _WORDS["policies"]:
            raise ValueError(f"Template error: {resource['Type']} does not support DeletionPolicy {policy}")
    made = {name for name, each in resources.items() if conditions.get(each.get("Condition"), True)}
    known = {*made, *(template.get("Parameters") or {}), *_WORDS["pseudo_parameters"]}
    for block in ("Resources", "Outputs"):
        entries = (template.get(block) or {}).values()
        lost = {each["Condition"] for each in entries if "Condition" in each} - set(template.get("Conditions") or {})
        # A resource may depend on one that a condition leaves out, but not refer to it.
        ordered = [each.get("DependsOn") or [] for each in entries]
        lost |= {
            name for names in ordered for name in ([names] if isinstance(names, str) else names)
        } - resources.keys()
        live = [_chosen(each, conditions) for each in entries if conditions.get(each.get("Condition"), True)]
        lost |= {name for name, _ in engine._intrinsic_references(live)} - known
        if lost:
            names = f"[{', '.join(sorted(lost))}] in the {block} block of the template"
            raise ValueError(f"Template format error: Unresolved resource dependencies {names}")
    if template.get("Conditions") and not conditions:
        return  # which resources and outputs there are is not known
    graph = {name: engine._extract_deps(_chosen(resources[name], conditions), made) for name in made}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise ValueError(f"Circular dependency between resources: [{', '.join(sorted(set(error.args[1])))}]") from None
    outputs = [of for of in (template.get("Outputs") or {}).values() if conditions.get(of.get("Condition"), True)]
    exported = [str(of["Export"].get("Name")) for of in outputs if "Export" in of]
    if twice := sorted({name for name in exported if exported.count(name) > 1}):
        raise ValueError(f"Template format error: Outputs export {twice[0]} twice")


def _validation_errors(
    inner: Callable[..., Any], resources: Any, order: list[str], params: Any, conditions: Any, *rest: Any
) -> Any:
    """Hold properties, as far as they are known before anything is made, to the schemas of their types."""
    found = inner(resources, order, params, conditions, *rest)
    attributes = {name: schemas.UNKNOWN for _, name in engine._intrinsic_references(resources)}
    later = {name: {"PhysicalResourceId": schemas.UNKNOWN, "Attributes": attributes} for name in resources}
    for name in order:
        kind, given = resources[name]["Type"], copy.deepcopy(resources[name].get("Properties") or {})
        if schemas.schemas().get(kind, {}).get("early"):
            with contextlib.suppress(LookupError, TypeError, ValueError):  # of functions of what is unknown
                known = engine._resolve_refs(given, later, params, conditions, *rest[:3])
                wrong = list(schemas.problems(kind, schemas.coerced(kind, known)))
                where = f"/Resources/{name}/Properties"
                found += [(name, kind, "PROPERTY_VALIDATION", where + at, why) for at, why in wrong]
    return found


def _chosen(node: Any, conditions: Mapping[str, bool]) -> Any:
    """Give a part of a template as its conditions have it, without what is not for CloudFormation."""
    if isinstance(node, list):
        return [_chosen(each, conditions) for each in node]
    if not isinstance(node, dict):
        return node
    if foreign := [key for key in node if key.startswith("Fn::") and key not in _WORDS["functions"]]:
        raise ValueError(f"Template error: Encountered unsupported function: {foreign[0]}")
    if "Fn::If" in node and (condition := node["Fn::If"][0]) in conditions:
        return _chosen(node["Fn::If"][1 if conditions[condition] else 2], conditions)
    return {key: _chosen(value, conditions) for key, value in node.items() if key != "Metadata"}
