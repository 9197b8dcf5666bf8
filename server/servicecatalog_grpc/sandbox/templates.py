"""What a template says of its parameters and outputs, in AWS's shapes."""

import json
from typing import Any

import yaml

_CONSTRAINTS = ("AllowedPattern", "ConstraintDescription", "MaxLength", "MinLength", "MaxValue", "MinValue")


class _Loader(yaml.BaseLoader):  # type: ignore[misc]  # yaml is untyped
    """Takes every scalar as the text that it is: to CloudFormation a default of 010 is neither 10 nor 8."""


# Nothing that is read here may hold an intrinsic function.
_Loader.add_multi_constructor("!", lambda *_: None)


def describe(template: str) -> dict[str, Any]:
    """Return what DescribeProvisioningParameters tells of a template that CloudFormation has taken."""
    try:
        parsed = yaml.load(template, _Loader)  # noqa: S506 -- a BaseLoader makes nothing but text, lists and dicts
    except yaml.YAMLError:
        parsed = json.loads(template)  # JSON that is indented by tabs is no YAML
    outputs = [
        {"Key": key, "Description": output.get("Description", "")} for key, output in parsed.get("Outputs", {}).items()
    ]
    version = parsed.get("AWSTemplateFormatVersion")
    return {
        "ProvisioningArtifactParameters": [
            _parameter(key, parameter) for key, parameter in parsed.get("Parameters", {}).items()
        ],
        "UsageInstructions": [{"Type": "version", "Value": version}] if version else [],
        "ProvisioningArtifactOutputs": outputs,
        "ProvisioningArtifactOutputKeys": outputs,
    }


def _parameter(key: str, parameter: dict[str, Any]) -> dict[str, Any]:
    default = {"DefaultValue": str(parameter["Default"])} if "Default" in parameter else {}
    return {
        "ParameterKey": key,
        **default,
        "ParameterType": parameter.get("Type", "String"),
        "IsNoEcho": str(parameter.get("NoEcho")).lower() == "true",
        "Description": parameter.get("Description", ""),
        "ParameterConstraints": {
            "AllowedValues": [str(value) for value in parameter.get("AllowedValues", ())],
            **{name: str(parameter[name]) for name in _CONSTRAINTS if name in parameter},
        },
    }
