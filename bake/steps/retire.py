"""Remove old images of a profile, and their copies, unless something refers to them.

It is what `bake prune` does, with one profile's rule. A bake's image is finished by then, so whatever goes
wrong here is a note with the command to run by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bake.aws import Aws
from bake.image import Image, images_of, remove_by_hand, state_of
from bake.lifecycle.prune import Pruned, Scope, preview, prune
from bake.lifecycle.references import BY_EC2, QUESTIONS, Asks
from bake.lifecycle.retention import Rule
from bake.planning.parts import ImagePlan
from bake.run import Run
from bake.steps.attempt import attempt


def retire(plan: ImagePlan, aws: Aws, run: Run, image: Image) -> None:
    """Remove this profile's good images beyond the `image.keep` newest that nothing refers to."""
    remove_old(plan, aws, run, outdated(plan, aws, image.id), f"the profile keeps {plan.keep}")


def outdated(plan: ImagePlan, aws: Aws, newest: str) -> list[str]:
    """List this profile's good images beyond the `keep` newest, oldest first; none if `keep` is not set."""
    keep = plan.keep
    if keep is None:
        return []
    good = [image for image in images_of(aws, plan.profile) if state_of(image) == "good"]
    others = [image["ImageId"] for image in good if image["ImageId"] != newest]
    return others[: max(len(others) - (keep - 1), 0)]


def remove_old(plan: ImagePlan, aws: Aws, run: Run, images: Sequence[str], why: str) -> None:
    """Remove good images of the profile that are not kept any more, unless something refers to them.

    Whether something does is asked only if there are such images, and everywhere, as `bake prune` asks.
    """
    _remove(plan, aws, run, images, why, QUESTIONS)


def remove_unproven(plan: ImagePlan, aws: Aws, run: Run, images: Sequence[str], why: str) -> None:
    """The same with unproven images, of which EC2 alone is asked: they were never published."""
    _remove(plan, aws, run, images, why, BY_EC2)


def _remove(
    plan: ImagePlan, aws: Aws, run: Run, images: Sequence[str], why: str, questions: Mapping[str, Asks]
) -> None:
    def act() -> None:
        scope = _scope(plan, aws, frozenset(images), questions)
        seen = preview(scope, prices=False)
        known = {one.held.id: one for one in seen.verdicts}
        for one in images:
            if one not in known or known[one].outcome != "prune":
                missing = [f"{what} could not be asked: {why}" for what, why in seen.unanswered.items()]
                untold = "; ".join(missing) or "it has no tag bake:run"
                stays = known[one].why if one in known else untold
                run.progress.note(f"{one} is older than what is kept, and left alone: {stays}")
        _tell(run, prune(scope, seen), why)

    if images:
        failed = f"{', '.join(images)} {'was' if len(images) == 1 else 'were'} not removed"
        attempt(run, failed, act, *(remove_by_hand(aws, one) for one in images))


def _scope(plan: ImagePlan, aws: Aws, only: frozenset[str], questions: Mapping[str, Asks]) -> Scope:
    """The builder's region and those of copies, and the profile's rule."""
    rule = Rule(plan.keep, plan.keep_unproven, frozenset(plan.share_with), protect=plan.wanted.protect)
    clouds = {aws.region: aws, **{one: aws.within(one) for one in plan.wanted.regions if one != aws.region}}
    return Scope(clouds, {plan.profile: rule}, only=only, profile=plan.profile, questions=questions)


def _tell(run: Run, pruned: Pruned, why: str) -> None:
    for held in pruned.removed:
        of = ", as the image that it is a copy of" if "bake:copy-of" in held.tags else ""
        run.progress.note(f"removed {held.id}{of}: {why}")
    for one in pruned.spared:
        run.progress.note(f"{one.held.id} is older than what is kept, and left alone: {one.why}")
    for leak in pruned.leaks:
        run.progress.note(leak)
