"""The stack of a fleet's CloudFormation template, made in the local cloud by AWS's own calls.

It stands for CloudFormation: resources are made when they are first referred to, and removed in reverse.
What it does not know is an error, so that nothing of the template is passed over.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from bake.localcloud.settings import ACCOUNT

from .intrinsics import NO_VALUE, resolve
from .resources import MAKERS, READ, Clients, Made, Properties

_SECTIONS = {"AWSTemplateFormatVersion", "Description", "Metadata", "Parameters", "Conditions", "Resources"}
_PARTS = {"Type", "Properties", "Condition", "DependsOn", "DeletionPolicy", "UpdateReplacePolicy", "Metadata"}
_OF_UPDATES = {"UpdatePolicy"}  # nothing is updated here


class Stack:
    """What was made of a template.

    `read` has the properties of what was read and not made, by name; `left_out` what a condition leaves out.
    """

    def __init__(
        self,
        template: Mapping[str, Any],
        clients: Clients,
        region: str,
        parameters: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        if unknown := set(template) - _SECTIONS - {"Outputs"}:
            raise ValueError(f"the template has sections that nothing here knows: {sorted(unknown)}")
        self.name, self.region = f"stack-{secrets.token_hex(4)}", region
        self._template, self._clients = template, clients
        self._parameters = _values(template.get("Parameters", {}), parameters)
        self._parameters |= {
            "AWS::AccountId": ACCOUNT, "AWS::Region": region, "AWS::Partition": "aws",
            "AWS::StackName": self.name, "AWS::URLSuffix": "amazonaws.com", "AWS::NoValue": NO_VALUE,
        }  # fmt: skip
        self._made: dict[str, Made] = {}
        self._begun: list[str] = []
        self.read: dict[str, dict[str, Any]] = {}
        self.left_out: list[str] = []
        self.outputs: dict[str, Any] = {}

    def __enter__(self) -> Stack:
        try:
            for name, resource in self._template["Resources"].items():
                if "Condition" not in resource or self.holds(resource["Condition"]):
                    self._make(name)
                else:
                    self.left_out.append(name)
            outputs = self._template.get("Outputs", {})
            self.outputs = {name: resolve(one["Value"], self) for name, one in outputs.items()}
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._made:
            self._made.popitem()[1].remove()

    def of_type(self, kind: str) -> dict[str, Made]:
        """The resources of a type, by name."""
        resources = self._template["Resources"]
        return {name: made for name, made in self._made.items() if resources[name]["Type"] == kind}

    def properties(self, name: str) -> dict[str, Any]:
        """A resource's properties with all functions' values in them."""
        found: dict[str, Any] = resolve(self._template["Resources"][name].get("Properties", {}), self)
        return found

    def ref(self, name: str) -> Any:
        """What Ref gives."""
        return self._parameters[name] if name in self._parameters else self._make(name).ref

    def attribute(self, name: str, attribute: str) -> str:
        """What Fn::GetAtt gives."""
        found = self._make(name).attributes
        if attribute not in found:
            raise ValueError(f"nothing here knows {name}.{attribute}")
        return found[attribute]

    def holds(self, condition: str) -> bool:
        """Whether a condition is true."""
        return bool(resolve(self._template["Conditions"][condition], self))

    def _make(self, name: str) -> Made:
        if name in self._made:
            return self._made[name]
        if name in self._begun or name not in self._template["Resources"]:
            raise ValueError(f"{name} is no resource, or refers to itself: {self._begun}")
        resource = self._template["Resources"][name]
        if unknown := set(resource) - _PARTS - _OF_UPDATES:
            raise ValueError(f"{name} has parts that nothing here knows: {sorted(unknown)}")
        self._begun.append(name)
        needed = resource.get("DependsOn", [])
        for other in [needed] if isinstance(needed, str) else needed:
            self._make(other)
        made = self._made[name] = self._one(name, resource["Type"])
        return made

    def _one(self, name: str, kind: str) -> Made:
        properties = self.properties(name)
        if kind in READ:
            self.read[name] = properties
            ref = f"{self.name}-{name}"
            return Made(ref, {"Arn": READ[kind].format(region=self.region, account=ACCOUNT, name=ref)})
        if kind not in MAKERS:
            raise ValueError(f"{name}: nothing here makes {kind}")
        return MAKERS[kind](self._clients, f"{self.name}-{name}", Properties(name, properties))


def _values(declared: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters' values: those given, or else their defaults. ValueError for one without either."""
    if unknown := set(given) - set(declared):
        raise ValueError(f"no parameters of the template: {sorted(unknown)}")
    found = {}
    for name, about in declared.items():
        if name not in given and "Default" not in about:
            raise ValueError(f"the parameter {name} has no value")
        value = given.get(name, about.get("Default"))
        is_list = about["Type"].startswith(("List<", "CommaDelimitedList"))
        found[name] = value.split(",") if is_list and isinstance(value, str) else value
    return found
