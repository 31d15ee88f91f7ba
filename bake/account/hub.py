"""Ask the Hub for the model's files, and whether the token may download them."""

from __future__ import annotations

from bake.profile import Profile
from bake.weights import hub
from bake.weights.hub import Refusal, Revision


def ask_hub(profile: Profile, endpoint: str | None) -> Revision | Refusal:
    """Return the revision's files, or what the Hub's refusal means. Nothing is downloaded."""
    try:
        found = hub.revision(profile.weights, endpoint)
        hub.check_leave(profile.weights, endpoint)
    except Exception as error:
        refused = hub.refusal(error)
        if refused is None:
            raise
        return refused
    return found
