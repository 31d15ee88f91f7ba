"""Whether a finished AMI is read and attested, and the key that signs that: types of a profile's settings."""

from __future__ import annotations

from typing import Annotated

from bake.profile.types import Like

# A file, or a key of AWS KMS by its id, ARN or alias. A private key itself has spaces and newlines.
SigningKey = Annotated[
    str,
    Like(
        r"^(awskms:(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+|alias/[A-Za-z0-9/_-]+"
        r"|(mrk-)?[0-9a-f-]{32,40})|(?!awskms:)[A-Za-z0-9._~/@+=-][^\n:]*)$",
        "the path of a private key (signing.pem), or awskms: and a key's id, ARN or alias",
    ),
]
