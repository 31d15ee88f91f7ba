"""Hide the user's environment from a rehearsal, which needs none of it.

AWS proxies, profiles and endpoints, settings of huggingface_hub, Python's options: each can make a rehearsal
fail or reach somewhere else. A bake on AWS keeps them.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html
# https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
PREFIXES = (
    "AWS_",
    "BOTO",
    "DIFFUSERS_",
    "HF_",
    "HUGGINGFACE_",
    "HUGGING_FACE_",
    "MOTO_",
    "TRANSFORMERS_",
)
CERTIFICATES = ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSLKEYLOGFILE", "SSL_CERT_DIR", "SSL_CERT_FILE")
# Read by programs that a rehearsal runs.
PROGRAMS = (
    "BASH_ENV",
    "CDPATH",
    "ENV",
    "POSIXLY_CORRECT",
    "TAR_OPTIONS",
    "PYTHONDEVMODE",
    "PYTHONINSPECT",
    "PYTHONIOENCODING",
    "PYTHONOPTIMIZE",
    "PYTHONSTARTUP",
    "PYTHONUTF8",
    "PYTHONWARNINGS",
)
# If exported, these mean this machine's cache; the image's is set in .env.local.
CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
# Otherwise botocore reads ~/.aws, which may be broken.
INSTEAD = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "PYTHONUTF8": "1",
}
# Warnings that Python ignores by default, except in `__main__`.
QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)

_aside: dict[str, str] = {}


def cleaned(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a rehearsal's processes, without anything that leads elsewhere."""
    return {name: value for name, value in environment.items() if not _foreign(name, value)} | INSTEAD


def set_aside() -> None:
    """Remove from this process's environment what a rehearsal must not see; idempotent.

    Call it before boto3 and huggingface_hub are imported, which read some of it then.
    """
    found = {name: value for name, value in os.environ.items() if _foreign(name, value)}
    _aside.update({name: value for name, value in found.items() if INSTEAD.get(name) != value})
    for name in found:
        del os.environ[name]
    os.environ.update(INSTEAD)
    if sys.warnoptions:  # PYTHONWARNINGS=error makes a library's advice an error
        warnings.resetwarnings()
        for category in QUIET:
            warnings.simplefilter("ignore", category)


def exported() -> dict[str, str]:
    """Return what the user exported, set aside or not, for `${NAME}` in profiles."""
    return {**{name: value for name, value in _aside.items() if name not in CACHES}, **os.environ}


@contextmanager
def users_network() -> Iterator[None]:
    """Restore the user's proxies and certificates while something is fetched from outside."""
    mine = {name: value for name, value in _aside.items() if _of_network(name) and name not in os.environ}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name in mine:
            os.environ.pop(name, None)


def _foreign(name: str, value: str) -> bool:
    if name == "TMPDIR":  # Python does without one that is not there; mktemp and mmdebstrap don't
        return not os.access(value, os.R_OK | os.W_OK | os.X_OK)
    return name.startswith(PREFIXES) or name in PROGRAMS or _of_network(name)


def _of_network(name: str) -> bool:
    """Whether it is about the network; as in urllib, any name that ends in _proxy, in any case."""
    return name.lower().endswith("_proxy") or name in CERTIFICATES
