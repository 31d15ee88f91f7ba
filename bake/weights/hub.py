"""Ask the Hub about the model's repository, and explain its refusals. Nothing here downloads weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bake.weights import flux
from bake.weights.flux import WeightFile

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from bake.profile.weights import Weights

PATIENCE = 30  # seconds for an answer about metadata
NO_HUB = "is there a proxy or a login page in between?"
# Errors of the HTTP library (whose name has changed before) before anything is sent.
BAD_ADDRESS = {"InvalidURL", "UnsupportedProtocol"}
BAD_HEADER = {"LocalProtocolError", "UnicodeEncodeError", "InvalidHeader"}
TOKENS = "https://huggingface.co/settings/tokens"


@dataclass(frozen=True)
class Revision:
    """A commit of the repository (40 hex digits) and all of its files, also those that nobody loads."""

    commit: str
    files: Mapping[str, WeightFile]


@dataclass(frozen=True)
class Refusal:
    """What the Hub's error means. `setting` is the one at fault, empty when the Hub was not reached."""

    setting: str
    text: str
    hint: str | None = None


def revision(weights: Weights, endpoint: str | None, name: str | None = None) -> Revision:
    """The revision of a profile, or what a branch, tag or commit `name` is now; metadata is open to all."""
    asked = name or weights.revision
    info = _api(weights, endpoint).model_info(
        weights.repo, revision=asked, files_metadata=True, timeout=PATIENCE
    )
    files = {item.rfilename: _file(item) for item in info.siblings or []}
    return Revision(info.sha or asked, files)


def _file(item: Any) -> WeightFile:
    sha256 = item.lfs.sha256 if item.lfs else None
    return WeightFile(item.size or 0, sha256, None if sha256 else item.blob_id)


def check_leave(weights: Weights, endpoint: str | None) -> None:
    """Raise the Hub's refusal unless this token may download the files: the repository is gated."""
    _api(weights, endpoint).auth_check(weights.repo)


def loaded(weights: Weights, endpoint: str | None, found: Revision) -> Mapping[str, WeightFile]:
    """The files of a revision that diffusers loads, by its model_index.json; the repository is gated."""
    from huggingface_hub import hf_hub_download

    with tempfile.TemporaryDirectory(prefix="bake-lock-") as directory:
        file = hf_hub_download(
            weights.repo,
            flux.INDEX,
            revision=found.commit,
            local_dir=directory,
            token=weights.token.get_secret_value(),
            endpoint=endpoint,
            etag_timeout=PATIENCE,
        )
        parts = flux.components(json.loads(Path(file).read_text(encoding="utf-8")))
    return {path: file for path, file in sorted(found.files.items()) if flux.wanted(path, parts)}


def _api(weights: Weights, endpoint: str | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, token=weights.token.get_secret_value())


def refusal(error: Exception, repo: str = flux.REPO) -> Refusal | None:
    """What the Hub refused, and why; None for other errors."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return Refusal("", "the answer is not the Hub's", NO_HUB)
    if (unsent := _unsent(error)) is not None:
        return unsent
    if not isinstance(error, HfHubHTTPError):
        # By module, since the name of its HTTP library has changed before.
        of_the_hub = type(error).__module__.startswith(("httpx", "httpcore", "huggingface_hub"))
        return Refusal("", f"the Hub can't be reached: {type(error).__name__}") if of_the_hub else None
    response = error.response
    status: Any = response.status_code if response is not None else 0
    said = (response.headers.get("X-Error-Message") or "") if response is not None else ""
    if status == 401:
        return Refusal("weights.token", "the Hub does not know this token", f"make one at {TOKENS}")
    if status == 403:
        return _forbidden(said, repo)
    if status == 404:
        return Refusal("weights.revision", f"{repo} has no such revision, or this token may not see it")
    return Refusal("", f"the Hub answers {status}")


def _unsent(error: Exception) -> Refusal | None:
    """Why a request could not even be sent: its address or its token; None for any other error.

    The error's own text is never shown: it may hold the header, and with it the token.
    """
    kinds = {type(one).__name__ for one in _chain(error)}
    if found := sorted(kinds & BAD_ADDRESS):
        text = f"the Hub's address is not valid ({found[0]})"
        return Refusal("HF_ENDPOINT", text, "it is something like https://huggingface.co")
    if found := sorted(kinds & BAD_HEADER):
        text = f"no request can be made with this token ({found[0]})"
        return Refusal("weights.token", text, f"set it anew, with nothing around it; it is shown at {TOKENS}")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes: the Hub's library wraps errors of HTTP in its own."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _forbidden(said: str, repo: str) -> Refusal:
    """The three ways in which a valid token may not download a gated repository."""
    if "fine-grained" in said:
        text = "this fine-grained token may not read public gated repositories"
        return Refusal("weights.token", text, f"allow it to at {TOKENS}")
    if "awaiting" in said:
        text = f"the account of this token asked for {repo}, and the request is not granted yet"
        return Refusal("weights.token", text, f"look at https://huggingface.co/{repo}")
    text = f"the account of this token may not download {repo}"
    return Refusal("weights.token", text, f"accept the licence at https://huggingface.co/{repo}")
