"""Explain errors of AWS and of the network to a person: a message and a hint.

Exceptions of botocore are known by their names, so that it need not be imported.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bake.retries import error_code

WHO = "aws sts get-caller-identity shows which account and role this is"
PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
CERTIFICATES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")

# botocore's exceptions by topic; each includes those derived from it.
PROXY = ("ProxyConnectionError", "InvalidProxiesConfigError")
TLS = ("SSLError",)
NETWORK = (
    "HTTPClientError",  # connections, timeouts, and what is derived from them
    "EndpointConnectionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
    "ConnectionClosedError",
    "ConnectionError",
    "ResponseStreamingError",
    "IncompleteReadError",
)
PROFILE = ("ProfileNotFound",)
FILE = ("ConfigParseError", "ConfigNotFound", "InvalidConfigError", "RefreshWithMFAUnsupportedError")
SIGN_IN = ("SSOError", "SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError", "LoginError")
NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "NoAuthTokenError",
)

# Error codes of the APIs; a suffix Exception is ignored.
ENDED = ("ExpiredToken", "RequestExpired", "TokenRefreshRequired")
UNKNOWN_KEY = (
    "AuthFailure",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "UnrecognizedClient",
    "InvalidToken",
)
SIGNATURE = ("SignatureDoesNotMatch", "InvalidSignature", "RequestTimeTooSkewed", "IncompleteSignature")
FORBIDDEN = ("UnauthorizedOperation", "AccessDenied", "NotAuthorized", "Forbidden", "403")
NOT_ENABLED = ("OptInRequired", "PendingVerification", "SubscriptionRequired")
TOO_MANY = ("RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequests", "SlowDown")

# "User: … is not authorized to perform: ec2:RunInstances on resource: arn:… because …. Encoded … message: …"
# https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
_ACTION = re.compile(r"not authorized to perform: ([a-z0-9-]+:\w+)(?: on resource: (\S+))?")
_WHY = re.compile(r"\b(?:because|with) ((?:an? |no )[^.]*)")
_ENCODED = re.compile(r"Encoded authorization failure message: (\S+)")


@dataclass(frozen=True)
class Denial:
    """What IAM denied, as far as AWS told: action, resource (ARN) and reason are empty where it did not.

    `encoded` is what whoever may call sts:DecodeAuthorizationMessage can read instead.
    """

    action: str = ""
    resource: str = ""
    why: str = ""
    encoded: str = ""

    def __str__(self) -> str:
        where = f" on {self.resource}" if self.resource else ""
        why = f": {self.why}" if self.why else ""
        return f"{self.action or 'the call'} is not allowed{where}{why}"


def denial(error: BaseException) -> Denial | None:
    """Return what a refusal of IAM says; None for any other error."""
    if not any(name in error_code(error) for name in FORBIDDEN):
        return None
    text = str(error)
    action, why, encoded = _ACTION.search(text), _WHY.search(text), _ENCODED.search(text)
    return Denial(
        action=action[1] if action else "",
        resource=(action[2] or "").rstrip(".") if action else "",
        why=why[1] if why else "",
        encoded=encoded[1] if encoded else "",
    )


def explain(error: BaseException) -> tuple[str, str] | None:
    """Return message and hint for an error of boto3, without passwords; None for any other error."""
    if not type(error).__module__.startswith(("botocore", "boto3")):
        return None
    code = error_code(error)
    hint = _of_code(code) if code else _of_kind(error)
    return redacted(f"AWS: {without_encoded(str(error))}"), redacted(hint)


def without_encoded(text: str) -> str:
    """Return EC2's refusal without the part for sts:DecodeAuthorizationMessage if it is in words, too."""
    if "is not authorized to perform" not in text:
        return text
    return re.sub(r"\.? ?Encoded authorization failure message: [\w-]+", "", text)


def is_mistake(error: BaseException) -> bool:
    """Whether it is about the user's own settings, so that nothing was started."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {*PROFILE, *FILE, "NoCredentialsError", "PartialCredentialsError"})


def is_about_credentials(error: BaseException) -> bool:
    """Whether AWS refused who calls, so that it says nothing of what was asked."""
    return _name(error_code(error)) in {*ENDED, *UNKNOWN_KEY, *SIGNATURE}


def redacted(text: str) -> str:
    """Return `text` without user names and passwords of URLs, and without parts of a proxy's password."""
    for name in PROXIES:
        private = re.match(r"(?:\w+://)?[^:@]*:(.*)@", os.environ.get(name, ""))
        for part in re.split(r"[/@?#:]", private[1]) if private else ():
            text = text.replace(part, "***") if len(part) > 2 else text
    return re.sub(r"//[^\s\"']*@", "//***@", text)


def _of_kind(error: BaseException) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    for names, hint in (
        (PROXY, _proxy),
        (TLS, _tls),
        (NETWORK, _network),
        (PROFILE, _profile),
        (FILE, _file),
        (SIGN_IN, _sign_in),
        (NO_CREDENTIALS, _no_credentials),
    ):
        if kinds & set(names):
            return hint(os.environ)
    return WHO


def _name(code: str) -> str:
    """A code without a service's prefix and suffix, as the tables have it."""
    return code.removesuffix("Exception").rpartition(".")[2]


def _of_code(code: str) -> str:
    name = _name(code)
    hints = {
        ENDED: "the credentials have ended: sign in again or renew them; then start again",
        UNKNOWN_KEY: "AWS does not know these credentials, or the account has not enabled the region: "
        f"{WHO}; aws account list-regions shows the regions",
        SIGNATURE: "the secret key does not belong to the access key, or this machine's clock is wrong: "
        "timedatectl shows it; AWS allows 5 minutes",
        FORBIDDEN: f"this role may not do that: add the permission that the message names; {WHO}",
        NOT_ENABLED: "the account has not enabled this region or service: see its console",
        TOO_MANY: "AWS asks for fewer calls: try again in a minute",
    }
    return next((hint for names, hint in hints.items() if name in names or code in names), WHO)


def _set(environment: Mapping[str, str], names: tuple[str, ...]) -> str:
    """Return `NAME=value` of the variables that are set; each value once."""
    found = {environment[name]: name for name in reversed(names) if environment.get(name)}
    shown = {name: re.sub(r"^(\w+://)?.*@", r"\1***@", value) for value, name in reversed(found.items())}
    return " and ".join(f"{name}={value}" for name, value in shown.items())


def _network(environment: Mapping[str, str]) -> str:
    if lost := [
        name for name in CERTIFICATES if name in environment and not Path(environment[name]).exists()
    ]:
        return f"of the network's certificates, {_set(environment, tuple(lost))} names no file"
    if used := _set(environment, PROXIES):
        return (
            f"is there a network from here, and does the proxy let that host through? The proxy is {used}; "
            "NO_PROXY names hosts to reach without it"
        )
    return (
        "is there a network from here, and does a firewall or DNS let that host through? No proxy is set: "
        "where there is one, HTTPS_PROXY names it"
    )


def _proxy(environment: Mapping[str, str]) -> str:
    used = _set(environment, PROXIES) or "set in a configuration file"
    return (
        f"the network beyond this machine is reached by a proxy that does not answer: it is {used}; "
        "correct it, unset it, or name hosts to reach without it in NO_PROXY"
    )


def _tls(environment: Mapping[str, str]) -> str:
    bundle = _set(environment, CERTIFICATES)
    proxy = _set(environment, PROXIES)
    return (
        "something in the network between here and AWS, as a proxy, has a certificate that is not trusted: "
        f"AWS_CA_BUNDLE names a file with the right ones{f'; now {bundle}' if bundle else ''}"
        f"{f'; the proxy is {proxy}' if proxy else ''}"
    )


def _profile(environment: Mapping[str, str]) -> str:
    name = _set(environment, ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"))
    return f"aws configure list-profiles shows which there are{f'; now {name}' if name else ''}"


def _file(environment: Mapping[str, str]) -> str:
    named = _set(environment, ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"))
    return f"mend that file{f', which the environment names: {named}' if named else ' in ~/.aws'}"


def _sign_in(environment: Mapping[str, str]) -> str:
    name = environment.get("AWS_PROFILE")
    return f"sign in again: aws sso login{f' --profile {name}' if name else ''}"


def _no_credentials(environment: Mapping[str, str]) -> str:
    return f"set AWS_PROFILE, or run aws configure or aws sso login; then {WHO}"
