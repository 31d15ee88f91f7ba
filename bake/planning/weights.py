"""The weights' files: from the Hub's metadata, for the exact revision; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bake import flux
from bake.flux import WeightFile
from bake.planning.findings import Findings
from bake.profile import Profile


@dataclass(frozen=True)
class WeightFiles:
    """Path in the repository -> file, and who said so; `certain` when these are the files of the bake."""

    files: Mapping[str, WeightFile]
    source: str
    certain: bool = True

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files.values())


def find(
    profile: Profile, hub: str | None, sizes: Mapping[str, int] | None, findings: Findings
) -> WeightFiles:
    """The files that a bake downloads. With `sizes` the Hub is a stand-in, and is not asked.

    Where the Hub does not answer, the sizes that are known serve, and that is noted.
    """
    if sizes is not None:
        return _known(sizes, "the real files' known sizes")
    try:
        found = _from_hub(profile, hub)
        findings.confirm("the Hub gives the weights of this revision to this token")
        return found
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        path, text = refusal
        if path:
            findings.problem(path, text)
        else:
            findings.not_checked("the weights' sizes and the Hub's leave to download them", text)
    source = "known sizes"
    if profile.weights.revision != flux.REVISION:
        source += f" of {flux.REVISION[:12]}"
    return _known(flux.SIZES, source, certain=False)


def _known(sizes: Mapping[str, int], source: str, *, certain: bool = True) -> WeightFiles:
    return WeightFiles({path: WeightFile(size) for path, size in sizes.items()}, source, certain)


def _from_hub(profile: Profile, hub: str | None) -> WeightFiles:
    from huggingface_hub import HfApi

    weights = profile.weights
    api = HfApi(endpoint=hub, token=weights.token.get_secret_value())
    info = api.model_info(weights.repo, revision=weights.revision, files_metadata=True, timeout=10)
    # Metadata is open to all; the files are given only to who accepted the licence.
    api.auth_check(weights.repo)
    files = {
        item.rfilename: WeightFile(item.size or 0, item.lfs.sha256 if item.lfs else None)
        for item in info.siblings or []
        if flux.wanted(item.rfilename)
    }
    return WeightFiles(files, "the Hub's metadata")


def _refusal(error: Exception) -> tuple[str, str] | None:
    """The setting at fault, or none, and what the Hub said; None for an error that is not the Hub's."""
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError):
        # Its HTTP library has changed its name before.
        of_the_hub = type(error).__module__.startswith(("httpx", "httpcore", "huggingface_hub"))
        return ("", f"the Hub can't be reached: {type(error).__name__}") if of_the_hub else None
    status: Any = error.response.status_code if error.response is not None else 0
    if status == 401:
        return "weights.token", "the Hub does not know this token"
    if status == 403:
        return (
            "weights.token",
            f"the account of this token may not download {flux.REPO}: "
            f"accept the licence at https://huggingface.co/{flux.REPO}",
        )
    if status == 404:
        return "weights.revision", f"{flux.REPO} has no such revision, or this token may not see it"
    return "", f"the Hub answers {status}"
