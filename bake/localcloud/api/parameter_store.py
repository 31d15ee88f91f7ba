"""moto's Parameter Store, with what it lacks: AMIs that are validated late, who changed what, and events.

A parameter of the data type `aws:ec2:image` is written after PutParameter has answered, and only if its AMI
is there: https://docs.aws.amazon.com/systems-manager/latest/userguide/parameter-store-ec2-aliases.html. What
became of it is told by an event, and by the version that is there or not.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from moto.ec2.models import ec2_backends
from moto.events.models import events_backends
from moto.ssm.exceptions import ParameterNotFound, SSMException, ValidationException
from moto.ssm.models import Parameter, SimpleSystemManagerBackend, ssm_backends

from bake.localcloud.api.call import CALLER

IMAGE: Final = "aws:ec2:image"
_LEVELS = 15
_LARGEST = {"Standard": 4096, "Advanced": 8192, "Intelligent-Tiering": 8192}  # characters of a value
_FIELDS = {"DataType": "data_type", "Tier": "tier"}  # filters of DescribeParameters
_TYPES = ("String", "StringList", "SecureString")


@dataclass(frozen=True)
class _Put:
    """A PutParameter that is validated: moto's arguments, the version that it was told, and who asked."""

    words: tuple[Any, ...]
    tier: str | None
    policies: str | None
    version: int
    caller: str


class ParameterStore(SimpleSystemManagerBackend):  # type: ignore[misc]
    """One region's Parameter Store."""

    # moto finds a service's URLs by the module of its backend's class.
    __module__ = SimpleSystemManagerBackend.__module__

    validation: ClassVar[Callable[[], float]] = staticmethod(lambda: 0.0)
    """How many seconds the next validation of an AMI takes."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self._putting = threading.RLock()
        self._promised: dict[str, set[int]] = {}

    def put_parameter(
        self,
        name: str,
        description: str,
        value: str,
        parameter_type: str,
        allowed_pattern: str,
        keyid: str,
        overwrite: bool,
        tags: list[dict[str, str]],
        data_type: str,
        tier: str | None = None,
        policies: str | None = None,
    ) -> Any:
        """Write a version, or promise one of an AMI; of calls at once, one alone creates a parameter."""
        words = name, description, value, parameter_type, allowed_pattern, keyid, overwrite, tags, data_type
        with self._putting:
            _check(name, description, value, tier)
            _check_types(self._latest(name), parameter_type, data_type)
            put = _Put(words, tier, policies, self._next(name), CALLER.get())
            if data_type != IMAGE:
                return self._write(put)
            promised = self._rehearsed(put)
            self._promised.setdefault(promised.name, set()).add(put.version)
        self._validate(put)
        promised.version = put.version
        return promised

    def _rehearsed(self, put: _Put) -> Parameter:
        """What will be written, or what is refused at once, whichever AMI it is."""
        scratch = SimpleSystemManagerBackend(self.region_name, self.account_id)
        name = put.words[0]
        if name in self._parameters:
            scratch._parameters[name] = list(self._parameters[name])
        return scratch.put_parameter(*put.words, tier=put.tier, policies=put.policies)

    def _latest(self, name: str) -> Parameter | None:
        versions: list[Parameter] = self._parameters.get(self._parameters.normalize_name(name), [])
        return versions[-1] if versions else None

    def _next(self, name: str) -> int:
        """The number of the next version, which those that are being validated have not been told."""
        latest = self._latest(name)
        told = {int(latest.version) if latest else 0, *self._promised.get(name, ())}
        return int(max(told)) + 1

    def _write(self, put: _Put) -> Parameter:
        operation = "Update" if self._latest(put.words[0]) else "Create"
        made = super().put_parameter(*put.words, tier=put.tier, policies=put.policies)
        made.version, made.last_modified_user = put.version, put.caller
        self._parameters[made.name].sort(key=lambda one: one.version)
        self._tell(operation, made.name, made.parameter_type, made.data_type)
        return made

    def _validate(self, put: _Put) -> None:
        if seconds := type(self).validation():
            later = threading.Timer(seconds, self._validated, (put,))
            later.daemon = True
            later.start()
        else:
            self._validated(put)

    def _validated(self, put: _Put) -> None:
        """Write what was promised, or tell why not: nothing of it is there then."""
        name, value, kind = put.words[0], put.words[2], put.words[3]
        with self._putting:
            self._promised[name].remove(put.version)
            operation = "Update" if self._latest(name) else "Create"
            try:
                if not self._is_available(value):
                    raise ValidationException("Unable to Describe Resource")
                self._write(put)
            except SSMException as error:
                self._tell(operation, name, kind, IMAGE, exception=error.message)

    def _is_available(self, image: str) -> bool:
        found = ec2_backends[self.account_id][self.region_name].amis.get(image)
        return found is not None and found.state == "available"

    def _validate_parameter_filters(self, parameter_filters: Any, by_path: bool) -> None:
        """As moto's, which does not know the filters of `_FIELDS`."""
        own = [one for one in parameter_filters or [] if not by_path and one.get("Key") in _FIELDS]
        if any(one.get("Option", "Equals") != "Equals" or not one.get("Values") for one in own):
            raise SSMException("InvalidFilterOption", "Give the values that it equals.")
        others = [one for one in parameter_filters or [] if one not in own]
        super()._validate_parameter_filters(others, by_path)

    def _match_filters(self, parameter: Parameter, filters: list[dict[str, Any]] | None = None) -> bool:
        own = [one for one in filters or [] if one["Key"] in _FIELDS]
        others = [one for one in filters or [] if one not in own]
        fits = all(getattr(parameter, _FIELDS[one["Key"]]) in one["Values"] for one in own)
        return fits and bool(super()._match_filters(parameter, others))

    def label_parameter_version(self, name: str, version: int, labels: list[str]) -> tuple[list[str], int]:
        """As moto's, which takes note of a parameter that is not there."""
        with self._putting:
            found = self._latest(name)
            if found is None:
                raise ParameterNotFound(f"Parameter {name} not found.")
            told: tuple[list[str], int] = super().label_parameter_version(name, version, labels)
        self._tell("LabelParameterVersion", name, found.parameter_type, found.data_type)
        return told

    def delete_parameter(self, name: str) -> None:
        with self._putting:
            found = self._latest(name)
            super().delete_parameter(name)
        if found:
            self._tell("Delete", name, found.parameter_type, found.data_type)

    def delete_parameters(self, names: list[str]) -> list[str]:
        there = {name: self._latest(name) for name in names}
        deleted: list[str] = super().delete_parameters(names)
        for name in deleted:
            if found := there[name]:
                self._tell("Delete", name, found.parameter_type, found.data_type)
        return deleted

    def _tell(self, operation: str, name: str, kind: str, data_type: str, **more: str) -> None:
        """Put Parameter Store's event on the region's default bus."""
        detail = {**more, "name": name, "type": kind, "operation": operation}
        if data_type == IMAGE:
            detail["dataType"] = data_type
        event = {
            "Source": "aws.ssm",
            "DetailType": "Parameter Store Change",
            "Detail": json.dumps(detail),
            "Resources": [f"{self.ssm_prefix}/{name.lstrip('/')}"],
        }
        events_backends[self.account_id][self.region_name].put_events([event])


def _check(name: str, description: str | None, value: str, tier: str | None) -> None:
    """Raise what Parameter Store answers to a name, a description or a value that it does not take."""
    if "/" in name and not name.startswith("/"):
        raise ValidationException("Parameter name must be a fully qualified name.")
    if not re.fullmatch(r"[A-Za-z0-9_./-]{1,1011}", name):
        raise ValidationException(
            "Parameter name: can consist of letters, numbers and the following 4 symbols .-_/ alone, and has "
            "1011 characters at most."
        )
    if name.count("/") > _LEVELS:
        raise SSMException(
            "HierarchyLevelLimitExceededException", f"A hierarchy can have a maximum of {_LEVELS} levels."
        )
    if len(description or "") > 1024:
        raise ValidationException(
            "1 validation error detected: Value at 'description' failed to satisfy constraint: Member must "
            "have length less than or equal to 1024"
        )
    largest = _LARGEST.get(tier or "Standard", 4096)
    if len(value or "") > largest:
        raise ValidationException(
            f"{tier or 'Standard'} tier parameters support a maximum parameter value of {largest} characters."
        )


def _check_types(before: Parameter | None, kind: str | None, data_type: str) -> None:
    """Raise what Parameter Store answers to a type that it has not, or to another one than before."""
    if kind and kind not in _TYPES:
        raise ValidationException(
            f"1 validation error detected: Value '{kind[:60]}' at 'type' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(_TYPES)}]"
        )
    if data_type == IMAGE and (kind or (before and before.parameter_type) or "String") != "String":
        raise ValidationException(f"The data type {data_type} is for parameters of the type String.")
    if before is None:
        return
    if kind and kind != before.parameter_type:
        raise SSMException(
            "HierarchyTypeMismatchException", "Parameter Store does not support changing a parameter's type."
        )
    if IMAGE in {data_type, before.data_type} and data_type != before.data_type:
        raise ValidationException(f"A parameter can't be changed to or from the data type {IMAGE}.")


def install() -> None:
    """Make moto build its Parameter Store from this one; to be called before the first request."""
    of_moto = Parameter.describe_response_object

    def described(self: Any, *words: Any, **named: Any) -> dict[str, Any]:
        user = getattr(self, "last_modified_user", CALLER.get())
        return {**of_moto(self, *words, **named), "LastModifiedUser": user}

    Parameter.describe_response_object = described
    ssm_backends.backend = ParameterStore
    for call in ("describe_parameters", "get_parameters_by_path"):
        setattr(
            SimpleSystemManagerBackend, call, _of_what_is_there(getattr(SimpleSystemManagerBackend, call))
        )


def _of_what_is_there(lists: Callable[..., Any]) -> Callable[..., Any]:
    """A call of moto's that lists parameters, and fails on a name that was only asked about."""

    def listed(self: Any, *words: Any, **named: Any) -> Any:
        for name in [name for name, versions in list(self._parameters.items()) if not versions]:
            self._parameters.pop(name, None)
        return lists(self, *words, **named)

    return listed
