"""Reports that are unusual: of a run that was cut, of one that knows nothing, and of a very large machine."""

from __future__ import annotations

from bake.report.model import (
    Change,
    Changes,
    Log,
    Package,
    Report,
    Span,
    Venue,
    Verdict,
)

from .samples import BASE, GOOD, SEALED, check

INTERRUPTED = GOOD.model_copy(
    update={
        "verdict": Verdict(
            state="interrupted",
            sentence="interrupted in provision: no AMI was made",
            error="Ctrl-C",
            hint="`bake resume 20261129-030709-9572df` goes on where it ended",
            exit_code=130,
            left_behind=(
                "instance i-0c0ffee0c0ffee002: "
                "`aws ec2 terminate-instances --instance-ids i-0c0ffee0c0ffee002`",
            ),
        ),
        "run": GOOD.run.model_copy(update={"finished": None, "attempts": 2}),
        "image": None,
        "pictures": (),
        "weights": None,
        "scan": None,
        "disk": (),
        "since_last_good": None,
        "last_good": None,
        "changed_on_machine": None,
        "inventories": (BASE.model_copy(update={"incomplete": ("sysctl", "ports")}),),
        "checks": tuple(
            check(f"worker.check_{number}", "not run", title=f"Check {number}", reason="the run ended before")
            for number in range(5)
        ),
        "timeline": (
            *GOOD.timeline[:2],
            Span(name="launch", began=0.0, seconds=12.0, outcome="done", attempt=2),
            Span(name="provision", began=12.5, seconds=30.0, outcome="failed", attempt=2, waited=29.0),
            Span(name="clean up", began=43.0, seconds=2.0, outcome="running", attempt=2),
        ),
    }
)
"""A bake that ended by Ctrl-C in its second attempt."""

MINIMAL = Report(
    venue=Venue(name="AWS"),
    verdict=Verdict(state="failed", sentence="the base AMI is not to be found"),
    run=GOOD.run.model_copy(update={"account": None, "operator": None, "finished": None}),
)
"""A run that ended before anything was known."""

LARGE = GOOD.model_copy(
    update={
        "venue": Venue(name="AWS"),
        "checks": tuple(
            check(
                f"{group}.check_{number}",
                "failed" if number == 3 and group == "security" else "passed",
                moment=moment,
                title=f"Statement {number} about {group} is true",
                severity=("critical", "high", "medium", "low")[number % 4],
                reason="expected none, found one" if number == 3 and group == "security" else "",
            )
            for group in (
                "system",
                "users",
                "drivers",
                "worker",
                "weights",
                "security",
                "disk",
                "performance",
            )
            for number in range(8)
            for moment in ("sealed", "booted")
        ),
        "inventories": (
            BASE,
            SEALED.model_copy(
                update={
                    "packages": tuple(
                        Package(
                            kind="python" if number % 12 == 0 else "deb",
                            name=f"lib-package-with-a-long-name-{number}",
                            version=f"2:{number}.37.1+git20260101-0ubuntu1.{number}",
                            arch="" if number % 12 == 0 else "amd64",
                            where="/opt/flux-worker/venv" if number % 12 == 0 else "",
                        )
                        for number in range(3000)
                    ),
                    "units": {f"unit-{number}.service": "enabled" for number in range(400)},
                }
            ),
        ),
        "changed_on_machine": Changes(
            before="base",
            after="sealed",
            changes=tuple(
                Change(kind="package", name=f"deb package-{number}", before=None, after="1.0", why="a script")
                for number in range(400)
            ),
        ),
        "pictures": (
            GOOD.pictures[0].model_copy(update={"title": "First image, bf16", "file": "bf16.png"}),
            GOOD.pictures[0].model_copy(
                update={
                    "title": "First image, int8",
                    "file": "int8.png",
                    "precision": "int8",
                    "note": "differs from bf16 by 31.2 dB",
                }
            ),
        ),
        "logs": tuple(
            Log(file=f"logs/bake-{number}.log", bytes=90_000, tail="a line of a log\n" * 2000)
            for number in range(12)
        ),
    }
)
"""A bake of int8 with 3,000 packages, 128 checks of which two failed, and long logs."""
