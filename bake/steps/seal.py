"""Remove from the builder what must not be on an image, and check by the same list that it is gone."""

from __future__ import annotations

import json

from bake.errors import NotVerified
from bake.layout import BAKE, SEAL, SYSTEM_PYTHON
from bake.planning.parts import WeightsPlan
from bake.run import Run
from bake.ssh import Session

# A builder that restarts forgets what lies in /run: the command, which runs again then, brings its program.
_RUN = """\
[ -e "$1/seal.json" ] || { install -d -m 700 "$1" && cp "$2/seal.py" "$2/seal.json" "$1"; } || exit
exec "$3" "$1/seal.py" both --keep "$4"
"""


def seal(session: Session, weights: WeightsPlan, run: Run) -> None:
    """Run `provision/seal.py`; the open session survives the removal of its own authorized_keys.

    The model cache is kept, even below a folder that the seal list empties.
    """
    with run.progress.step("seal"):
        # One sudo deletes and checks: auditd and syslog would log another, and the check would find it.
        # A second run has the same result. The keys are deleted last: if the connection breaks after that, no
        # new one can be opened, and the bake stops, because nobody can tell whether the seal is complete.
        done = session.run(
            *("sh", "-c", _RUN, "seal", SEAL, BAKE, SYSTEM_PYTHON, weights.cache), sudo=True, check=False
        )
        try:
            found = json.loads(done.stdout)
        except ValueError:
            raise NotVerified(f"the seal broke off:\n{done.stdout.strip()}{done.stderr.strip()}") from None
        run.keep("logs/seal.log", "".join([found["log"], *(f"{note}\n" for note in found["notes"])]))
        if wrong := found["failures"] + found["left"]:
            raise NotVerified(
                "the seal is not tight; failed, or still there:\n" + "\n".join(wrong),
                hint="stop and mask what writes there on the base AMI, or choose another base",
            )
