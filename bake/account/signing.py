"""Look at the key that signs attestations, before hours of work end without a signature."""

from __future__ import annotations

from dataclasses import dataclass

from bake.account.answers import Unanswered, ask
from bake.aws import Aws
from bake.errors import UsageError
from bake.profile import Profile


@dataclass(frozen=True)
class SigningKey:
    """The key that `signing_key` names: its id, or what is wrong with it."""

    id: str = ""
    wrong: str = ""


def ask_signing_key(profile: Profile, aws: Aws) -> SigningKey | Unanswered | None:
    """Open the key; None where nothing is signed with it. A rehearsal leaves the user's keys alone."""
    name = profile.signing_key
    if name is None or not profile.attest or aws.endpoint is not None:
        return None

    def look() -> SigningKey:
        from bake.attest import signing  # takes longer to import than a plan without it may

        try:
            return SigningKey(signing.opened(name, aws).public_key.keyid)
        except UsageError as error:
            return SigningKey(wrong=f"{error.message}; {error.hint}")

    return ask(look)
