"""The operations of AWS's services as botocore's models describe them: their names, paths and errors."""

from __future__ import annotations

import difflib
import fnmatch
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from bake.errors import UsageError

# Signing names that are not the names of botocore's folders.
_FOLDERS = {"monitoring": "cloudwatch", "servicequotas": "service-quotas", "states": "stepfunctions"}
_WILD = re.compile(r"[*?\[]")
_READING = threading.Lock()


@dataclass(frozen=True)
class ModelledError:
    """An error in a service's model: the exception's name, and its HTTP status if the model has one."""

    name: str
    status: int | None


@dataclass(frozen=True)
class RestOperation:
    """The form of a REST request for one operation.

    `query` has the literal parameters of its path (None: any value), `wanted_query` and `wanted_headers` what
    a request must have beside these.
    """

    name: str
    method: str
    path: re.Pattern[str]
    labels: tuple[str, ...]
    query: Mapping[str, str | None]
    wanted_query: frozenset[str]
    wanted_headers: frozenset[str]
    deprecated: bool

    def fits(self, method: str, path: str, query: Mapping[str, str], headers: frozenset[str]) -> bool:
        """Whether a request can be one for this operation."""
        return (
            self.method == method
            and self.path.fullmatch(path) is not None
            and all(name in query and value in (None, query[name]) for name, value in self.query.items())
            and self.wanted_query <= query.keys()
            and self.wanted_headers <= headers
        )

    @property
    def rank(self) -> tuple[int, int, bool, int, str]:
        """Highest for the operation with the most specific request; of equals, for the one not deprecated."""
        asked = len(self.query) + len(self.wanted_query) + len(self.wanted_headers)
        return asked, -len(self.labels), not self.deprecated, -len(self.name), self.name


def check(service: str, action: str) -> str:
    """The signing name of a service with operations that match `action`; UsageError if AWS has none.

    Both are patterns of fnmatch; a pattern for services is not checked any further.
    """
    if _WILD.search(service):
        return service
    if service not in _services():
        raise UsageError(f"AWS has no service {service}", hint=_nearest(service, _services()))
    names = _names(service)
    if names and not fnmatch.filter(names, action):
        raise UsageError(f"{service} has no operation {action}", hint=_nearest(action, names))
    return _signing_name(service)


def rest_operation(
    service: str, method: str, path: str, query: Mapping[str, str], headers: frozenset[str]
) -> tuple[str, dict[str, str]]:
    """The name of a REST request's operation and what its path names; "" where no operation fits."""
    path = path if path.rstrip("/").count("/") > 1 else path.rstrip("/") or "/"
    fitting = [one for one in _rest(service) if one.fits(method, path, query, headers)]
    if not fitting:
        return "", {}
    operation = max(fitting, key=lambda one: one.rank)
    match = operation.path.fullmatch(path)
    return operation.name, dict(zip(operation.labels, match.groups() if match else (), strict=True))


def names(service: str) -> frozenset[str]:
    """The operations of a service; none for a service that botocore does not know."""
    return _names(folder(service))


def folder(service: str) -> str:
    """The name of botocore's folder of a service, given by its signing name."""
    return _FOLDERS.get(service, service)


@cache
def query_names(service: str, operation: str) -> frozenset[str]:
    """The names that a REST operation may have in its query."""
    model = _model(service)
    described = model["operations"].get(operation) if model else None
    if model is None or described is None:
        return frozenset()
    _, _, query = described["http"]["requestUri"].partition("?")
    members = model["shapes"][described["input"]["shape"]]["members"] if "input" in described else {}
    placed = [one["locationName"] for one in members.values() if one.get("location") == "querystring"]
    return frozenset([*placed, *(name for name, _ in parse_qsl(query, keep_blank_values=True))])


@cache
def protocol_of(service: str) -> str:
    """`rest-json`, `rest-xml`, …; `rest-json` for a service that botocore does not know."""
    model = _model(service)
    return str(model["metadata"]["protocol"]) if model else "rest-json"


@cache
def modelled_errors(service: str) -> dict[str, ModelledError]:
    """The errors of a service by the code that its answers carry; EC2's model has none."""
    model = _model(service)
    found = {}
    for name, shape in (model["shapes"] if model else {}).items():
        if shape.get("exception"):
            error = shape.get("error", {})
            found[error.get("code", name)] = ModelledError(name, error.get("httpStatusCode"))
    return found


def _nearest(name: str, names: frozenset[str]) -> str:
    by_case = {one.lower(): one for one in names}
    near = difflib.get_close_matches(name.lower(), by_case, n=1, cutoff=0.6)
    return f"did you mean {by_case[near[0]]}?" if near else "write it as botocore does, like ec2 RunInstances"


def _loader() -> Any:
    from botocore.loaders import create_loader

    return create_loader()


@cache
def _folders() -> frozenset[str]:
    return frozenset(_loader().list_available_services("service-2"))


@cache
def _services() -> frozenset[str]:
    """Services by botocore's names, and by the signing names known without loading all models."""
    endpoints = _loader().load_data("endpoints")
    return _folders() | set(endpoints["partitions"][0]["services"]) | set(_FOLDERS)


def _model(service: str) -> Mapping[str, Any] | None:
    """Not cached whole: most of a model is documentation."""
    name = folder(service)
    return _loader().load_service_model(name, "service-2") if name in _folders() else None


def _names(service: str) -> frozenset[str]:
    with _READING:  # the first callers come at once, and EC2's model takes each a quarter of a second
        return _read_names(service)


@cache
def _read_names(service: str) -> frozenset[str]:
    model = _model(service)
    return frozenset(model["operations"]) if model else frozenset()


@cache
def _signing_name(service: str) -> str:
    model = _model(service)
    metadata = model["metadata"] if model else {}
    return str(metadata.get("signingName") or metadata.get("endpointPrefix") or service)


@cache
def _rest(service: str) -> tuple[RestOperation, ...]:
    model = _model(service)
    if model is None:
        return ()
    return tuple(_described(operation, model["shapes"]) for operation in model["operations"].values())


def _described(operation: Mapping[str, Any], shapes: Mapping[str, Any]) -> RestOperation:
    path, _, query = operation["http"]["requestUri"].partition("?")
    shape = shapes[operation["input"]["shape"]] if "input" in operation else {}
    wanted: dict[str, set[str]] = {"querystring": set(), "header": set()}
    for member in shape.get("required", []):
        place = shape["members"][member]
        if place.get("location") in wanted:
            wanted[place["location"]].add(place["locationName"])
    return RestOperation(
        name=operation["name"],
        method=operation["http"]["method"],
        path=re.compile(_pattern(path)),
        labels=tuple(label.rstrip("+") for label in re.findall(r"{([^}]+)}", path)),
        query={name: value or None for name, value in parse_qsl(query, keep_blank_values=True)},
        wanted_query=frozenset(wanted["querystring"]),
        wanted_headers=frozenset(name.lower() for name in wanted["header"]),
        deprecated=bool(operation.get("deprecated")),
    )


def _pattern(path: str) -> str:
    """`/{Bucket}/{Key+}` as a regular expression."""
    parts = re.split(r"({[^}]+})", path)
    return "".join(
        re.escape(part) if not part.startswith("{") else "(.+)" if part.endswith("+}") else "([^/]+)"
        for part in parts
    )
