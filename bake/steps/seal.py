"""Remove from the builder what must not be on an image, and check by the same list that it is gone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bake.aws import Aws
from bake.checks.case_list import SEAL as CASES
from bake.checks.cases import Cases, recording
from bake.creation import stamp, time_of
from bake.errors import NotVerified
from bake.layout import BAKE, SEAL, SYSTEM_PYTHON
from bake.planning.plan import Plan
from bake.run import Run
from bake.ssh import Session

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

# A builder that restarts forgets what lies in /run: the command, which runs again then, brings its program.
_RUN = """\
[ -e "$1/seal.json" ] || { install -d -m 700 "$1" && cp "$2/seal.py" "$2/seal.json" "$1"; } || exit
exec "$3" "$1/seal.py" both --keep "$4"
"""
SEALED = "sealed"  # when that was by AWS's clock, in the run's memory


def seal(session: Session, plan: Plan, aws: Aws, run: Run) -> None:
    """Run `provision/seal.py`; the open session survives the removal of its own authorized_keys.

    The model cache is kept, even below a folder that the seal list empties.
    """
    with (
        run.progress.step("seal"),
        recording(run, "sealed", "seal", CASES, plan.verify.waivers) as cases,
        cases.case("security.seal_whole") as case,
    ):
        # One sudo deletes and checks: auditd and syslog would log another, and the check would find it.
        # A second run has the same result. The keys are deleted last: if the connection breaks after that, no
        # new one can be opened, and the bake stops, because nobody can tell whether the seal is complete.
        done = session.run(
            *("sh", "-c", _RUN, "seal", SEAL, BAKE, SYSTEM_PYTHON, plan.weights.cache), sudo=True, check=False
        )
        try:
            found = json.loads(done.stdout)
        except ValueError:
            raise NotVerified(f"the seal broke off:\n{done.stdout.strip()}{done.stderr.strip()}") from None
        run.keep("logs/seal.log", "".join([found["log"], *(f"{note}\n" for note in found["notes"])]))
        case("no failure", found["failures"], "provision/seal.py both")
        _record(found["entries"], cases)
        if wrong := found["failures"] + found["left"]:
            raise NotVerified(
                "the seal is not tight; failed, or still there:\n" + "\n".join(wrong),
                hint="stop and mask what writes there on the base AMI, or choose another base",
            )
        run.remember(SEALED, str, stamp(aws.now()))


def _record(entries: Sequence[dict[str, Any]], cases: Cases) -> None:
    """Make a case of each group of the list: what was removed, and what is left."""
    for name in dict.fromkeys(entry["case"] for entry in entries if entry["case"]):
        with cases.case(name) as case:
            for entry in (one for one in entries if one["case"] == name):
                gone = f"gone ({entry['gone']} files)" if entry["gone"] else "nothing was there"
                by = f"provision/seal.py: {entry['action']} {entry['path']}"
                case.holds(not entry["left"], "gone", entry["left"] or gone, by)


def undone(run: Run, facts: InstanceTypeDef) -> str:
    """Say that the sealed builder was started again, which makes new keys and logs; empty if it was not.

    EC2 does that with a spot builder that it has interrupted.
    """
    sealed = time_of(run.recall(SEALED, str)) if run.recalls(SEALED) else None
    if sealed is None or facts["LaunchTime"] <= sealed:
        return ""
    return (
        f"its builder {facts['InstanceId']} was started again at {stamp(facts['LaunchTime'])}, after its "
        "seal: it is not what was sealed any more"
    )
