"""Make a profile's rule of retention, and say in which regions its images are."""

from __future__ import annotations

from bake.lifecycle.retention import Rule
from bake.profile import Profile
from bake.profile.channels import parameter_of

# Of a profile whose file is not here; the default of image.keep_unproven.
KEEP_UNPROVEN = 2


def rule_of(profile: Profile, keep: int | None = None) -> Rule:
    """The rule of a profile; `keep` counts instead of its `image.keep`."""
    image = profile.image
    return Rule(
        keep=image.keep if keep is None else keep,
        keep_unproven=image.keep_unproven,
        share_with=frozenset(image.share_with),
        channels={parameter_of(profile.name, name, one): name for name, one in profile.channels.items()},
        protect=profile.publish.protect,
    )


def regions_of(profile: Profile) -> tuple[str, ...]:
    """The builder's region, and those that good AMIs are copied to."""
    return tuple(dict.fromkeys((profile.builder.region, *profile.publish.regions)))
