"""CloudFormation's intrinsic functions, as far as a fleet's template has them; any other is an error."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

_VARIABLE = re.compile(r"\$\{(!?)([^}]*)\}")
_DYNAMIC = "{{resolve:"
NO_VALUE = object()
"""What AWS::NoValue stands for: the entry that has it is left out."""


class Names(Protocol):
    """What a template's names mean."""

    def ref(self, name: str) -> Any:
        """What Ref gives: of a parameter, a pseudo parameter or a resource."""
        ...

    def attribute(self, name: str, attribute: str) -> str:
        """What Fn::GetAtt gives of a resource."""
        ...

    def holds(self, condition: str) -> bool:
        """Whether a condition of the template is true."""
        ...


def resolve(value: Any, names: Names) -> Any:
    """A copy of a part of a template with the functions' values in it. ValueError for what is unknown."""
    if isinstance(value, Mapping):
        if len(value) == 1 and (function := next(iter(value))) in _FUNCTIONS:
            return _FUNCTIONS[function](value[function], names)
        if unknown := [one for one in value if str(one).startswith("Fn::") or one == "Ref"]:
            raise ValueError(f"a function that nothing here knows: {unknown[0]} in {json.dumps(value)}")
        inner = {name: resolve(one, names) for name, one in value.items()}
        return {name: one for name, one in inner.items() if one is not NO_VALUE}
    if isinstance(value, list):
        return [one for one in (resolve(one, names) for one in value) if one is not NO_VALUE]
    if isinstance(value, str) and _DYNAMIC in value:
        raise ValueError(f"a dynamic reference: {value}")
    return value


def _attribute(of: Any, names: Names) -> str:
    resource, attribute = of.split(".", 1) if isinstance(of, str) else of
    return names.attribute(resource, attribute)


def _substitute(text: Any, names: Names) -> str:
    text, own = text if isinstance(text, list) else (text, {})
    own = resolve(own, names)

    def one(match: re.Match[str]) -> str:
        literal, name = match[1], match[2].strip()
        if literal:  # ${!NAME} is ${NAME}
            return f"${{{match[2]}}}"
        if name in own:
            return str(own[name])
        return str(_attribute(name, names) if "." in name else names.ref(name))

    return _VARIABLE.sub(one, text)


def _join(of: Any, names: Names) -> str:
    between, parts = of
    return str(between.join(str(one) for one in resolve(parts, names)))


def _if(of: Any, names: Names) -> Any:
    condition, yes, no = of
    return resolve(yes if names.holds(condition) else no, names)


def _equals(of: Any, names: Names) -> bool:
    one, other = resolve(of, names)
    return bool(one == other)


_FUNCTIONS: Mapping[str, Callable[[Any, Names], Any]] = {
    "Ref": lambda name, names: names.ref(name),
    "Fn::GetAtt": _attribute,
    "Fn::Sub": _substitute,
    "Fn::Join": _join,
    "Fn::Select": lambda of, names: resolve(of[1], names)[int(of[0])],
    "Fn::Base64": lambda of, names: base64.b64encode(resolve(of, names).encode()).decode(),
    "Fn::If": _if,
    "Fn::Equals": _equals,
    "Fn::Not": lambda of, names: not resolve(of[0], names),
    "Condition": lambda name, names: names.holds(name),
}
