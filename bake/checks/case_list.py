"""The checks that the steps of a bake make: what each is about.

Those of a machine's content are testinfra's (`test_*.py`); these need a login, AWS or a job as well.
"""

from __future__ import annotations

from typing import Final

from bake.checks.baseline import RECORDED
from bake.checks.result import About, Group, Moment, Severity
from bake.layout import WORKER_ENV


def _about(
    name: str,
    severity: Severity,
    requirements: str,
    title: str,
    rationale: str,
    remedy: str,
    source: str,
    cis: str | None = None,
) -> About:
    group: Group = name.partition(".")[0]  # type: ignore[assignment]  # validated by About
    return About(
        id=name,
        group=group,
        title=title,
        severity=severity,
        requirements=tuple(requirements.split()),
        rationale=rationale,
        remedy=remedy,
        cis=cis,
        source=source,
    )


_CONNECT = "steps/connect.py"
# At the base AMI and at the booted image alike.
_LOGIN = (
    _about(
        "system.image",
        "critical",
        "R-AMI R-AGREE",
        "The machine was launched from the AMI that was agreed, or that this run made",
        "Whoever approves the image approves what it was made from.",
        "Look in CloudTrail who launched the instance; bake again.",
        _CONNECT,
    ),
    _about(
        "security.host_key",
        "critical",
        "R-CONFIG",
        "The machine answers with a host key that was made for this run",
        "Without that another machine could answer, and be given the token and the weights.",
        "Nothing to mend on the image: find out who answers at that address.",
        _CONNECT,
    ),
    _about(
        "system.os",
        "high",
        "R-OS R-AMI",
        "The machine runs the operating system and has the user that the profile says",
        "Scripts, paths and users differ between systems; on the wrong one they do harm.",
        "Name another AMI in base.ami, or the AMI's own system in base.os.",
        _CONNECT,
    ),
    _about(
        "users.becomes_root",
        "high",
        "R-OS",
        "The login user becomes root without a password and without a terminal",
        "The bake and its checks work as root; EC2's images all allow that.",
        "Restore the base AMI's file in /etc/sudoers.d (NOPASSWD, no requiretty).",
        _CONNECT,
    ),
    _about(
        "system.cloud_init",
        "high",
        "R-USERDATA",
        "cloud-init has ended without an error",
        "It sets up keys, users and the worker's settings; half of that is an unknown state.",
        "Mend what `cloud-init status --long` names on the base AMI, or in its vendor data.",
        _CONNECT,
    ),
)
_BASE = (
    _about(
        "disk.boot_room",
        "high",
        "R-DISK",
        "/boot has room for the driver's initramfs",
        "An initramfs that is cut off boots nothing.",
        "Remove old kernels from the base AMI, or name one with a larger /boot.",
        "steps/survey.py",
    ),
    _about(
        "system.upgrades_stopped",
        "medium",
        "R-AMI",
        "The machine does not upgrade itself while it is baked",
        "Packages that change meanwhile are in no lock, and hold the package manager's lock.",
        "Wait longer with builder.package_wait_minutes, or choose a base AMI that begins no upgrade.",
        "steps/stop_upgrades.py",
    ),
    _about(
        "disk.fits",
        "critical",
        "R-DISK R-EBS",
        "Weights, worker and room to work fit beside the base AMI",
        "A disk that fills up breaks the download, or the worker months later.",
        "Choose in the profile, as the error lists: a larger volume, int8, or base.remove.",
        "steps/check_capacity.py",
    ),
)
_KIND_GROUPS: dict[str, Group] = {
    "failed_units": "system",
    "swap": "system",
    "powers_off": "system",
    "changed_python": "system",
    "unsound_packages": "system",
    "hf_home": "weights",
    "users": "users",
    "with_password": "users",
    "authorized_keys": "users",
}


def baseline_case(kind: str) -> str:
    """The id of the case that a kind of findings of the base AMI was recorded."""
    return f"{_KIND_GROUPS.get(kind, 'security')}.base_{kind}"


_BASELINE = tuple(
    _about(
        baseline_case(kind),
        "medium",
        "R-AMI",
        f"Recorded of the base AMI: {called}",
        "Only what was there before the bake counts as the base AMI's own; the rest is the bake's.",
        "Bake again: a slow disk may have taken too long. What was not recorded counts as the base AMI's "
        "only where its files are older than the builder.",
        "steps/record_baseline.py",
    )
    for kind, called in RECORDED.items()
)
_SEAL = "../provision/seal.yaml"
_SHARED = "Everything on the image is on each machine that boots it."
_WRITER = "Stop and mask what writes there on the base AMI, or choose another base."


def _sealed(name: str, severity: Severity, title: str, rationale: str = _SHARED, needs: str = "") -> About:
    return _about(name, severity, needs or "R-CONFIG", title, rationale, _WRITER, _SEAL)


_SEALED = (
    _sealed("system.seal_machine_id", "high", "The builder's machine id is gone"),
    _sealed(
        "security.seal_randomness",
        "high",
        "The builder's random seeds and credential key are gone",
        "Machines with the same seed make the same keys.",
    ),
    _sealed("system.seal_cloud_init", "critical", "cloud-init's data of the builder is gone"),
    _sealed("system.seal_names", "medium", "The builder's names and addresses are in no file"),
    _sealed("security.seal_agents", "high", "Systems Manager's state of the builder is gone"),
    _sealed("worker.seal_state", "high", "No setting, picture or prompt of an earlier worker is left"),
    _sealed("security.seal_credentials", "critical", "No user's tokens, passwords or AWS keys are left"),
    _sealed("security.seal_history", "high", "No history of shells and editors is left"),
    _sealed("security.seal_logs", "high", "Logs, journal and core dumps are empty"),
    _sealed("disk.seal_caches", "low", "Downloads and temporary files are gone", needs="R-CACHE"),
    _sealed("system.seal_tools", "medium", "The bake's own tools and settings are gone"),
    _sealed("system.seal_lease", "critical", "Nothing of the builder's lease would power a worker off"),
    _sealed("users.seal_login_keys", "critical", "No login key, private key or known host is left"),
    _sealed(
        "security.seal_host_keys",
        "critical",
        "No SSH host key is left: each machine makes its own",
        "Whoever boots the image could stand for all of its machines.",
    ),
    _sealed("security.seal_whole", "critical", "The seal has removed all it lists, without an error"),
)
_IMAGE = (
    _about(
        "disk.image_as_agreed",
        "critical",
        "R-DISK R-AGREE",
        "The AMI's disks have the size, type and encryption that were agreed",
        "Each machine that boots the AMI pays for its disks; none was to change unasked.",
        "Look at the base AMI's own disks and at the account's EBS defaults.",
        "steps/create_image.py",
    ),
    _about(
        "security.image_imdsv2",
        "high",
        "R-CONFIG",
        "Instances of the AMI need IMDSv2",
        "Version 1 gives the role's keys to whoever makes the worker fetch a URL.",
        "`aws ec2 modify-image-attribute --imds-support v2.0`, as the note in the report has it.",
        "steps/create_image.py",
    ),
)
_TRACE = (
    _about(
        "performance.trace_recorded",
        "medium",
        "R-SPOT",
        "What a start of the worker reads was recorded by a start",
        "A boot reads ahead of the worker by it; the list that stands in for it names more than is needed.",
        "See the reason; the image is complete, and has the list instead. Bake again once that is mended.",
        "steps/record_trace.py",
    ),
)
_BOOT = "steps/boot_check.py"
_BOOTED = (
    _about(
        "system.stays_on",
        "critical",
        "R-SPOT",
        "Nothing powers the machine off but what the base AMI brought",
        "A worker runs until somebody ends it.",
        "Look at what packages and scripts install: units, timers, jobs of cron.",
        "steps/check_power.py",
    ),
    _about(
        "worker.ready",
        "critical",
        "R-SYSTEMD C-SHAPE",
        "The worker has loaded the model and says READY",
        "An image whose worker does not start serves nobody.",
        "See logs/boot-check.journal.log in the run directory.",
        "steps/wait_for_worker.py",
    ),
    _about(
        "performance.ready_time",
        "medium",
        "R-SPOT",
        "The worker is ready within worker.start_hours",
        "A spot worker that takes hours to start is interrupted before it has paid.",
        "A faster volume type, a larger EBS limit of the type, or int8.",
        "steps/wait_for_worker.py",
    ),
    _about(
        "performance.cold_start",
        "medium",
        "R-SPOT",
        "The first image comes within cold_start.max_seconds of the running instance",
        "A spot worker is paid for from its launch, and draws from its first image on.",
        "See which stage took most; `bake boot-check AMI` measures again, with another volume. Faster are a "
        "higher cold_start.volume_initialization_rate, an instance type with more of EBS, and int8.",
        "steps/measure_cold_start.py",
    ),
    _about(
        "drivers.daemons",
        "high",
        "R-HW",
        "No daemon of the driver has failed",
        "A builder without a GPU could not try them.",
        "See the driver's lines in logs/boot-check.journal.log; name another nvidia.driver.",
        _BOOT,
    ),
    _about(
        "worker.rights",
        "high",
        "R-GIT-S3",
        "The instance profile may do what the worker does",
        "A right that is missing shows only at the first job.",
        "Add the statements that the error lists to the instance profile's policy.",
        "steps/check_worker_rights.py",
    ),
    _about(
        "worker.receives",
        "high",
        "R-GIT-S3",
        "The worker receives jobs from its queue",
        "Only its own calls can show that.",
        "May the instance profile use the queue, bucket and bus named bake-*?",
        "steps/check_worker_rights.py",
    ),
    _about(
        "worker.first_image",
        "critical",
        "R-MODEL R-GIT-S3",
        "One job gives one PNG of the asked size",
        "It is the proof that queue, model, device, bucket and bus work together.",
        "See logs/boot-check.journal.log in the run directory.",
        _BOOT,
    ),
    _about(
        "worker.precision",
        "high",
        "R-DTYPE",
        "The image was drawn in the profile's precision",
        "Another precision needs another amount of memory and draws other images.",
        f"Look at FLUX_MODEL_DIR in {WORKER_ENV} of the image.",
        _BOOT,
    ),
    _about(
        "worker.device",
        "critical",
        "R-HW",
        "The image was drawn on the device that the plan says",
        "Without a usable driver the worker falls back to the CPU: a success, but a slow one.",
        "See the driver's lines in logs/boot-check.journal.log.",
        _BOOT,
    ),
    _about(
        "performance.memory",
        "medium",
        "R-OOM",
        "The worker's memory fits the machine",
        "The kernel ends a process that takes too much, in the middle of a job.",
        "Choose a larger type, or int8.",
        _BOOT,
    ),
)
_FIRST_BOOT = (
    _about(
        "security.new_host_keys",
        "critical",
        "R-CONFIG",
        "The SSH host keys were made by this boot",
        "Keys that came with the image are on all of its machines.",
        "See the seal's cases; look whether the base AMI brings keys in another place.",
        "checks/probes/first_boot.py",
        "Ubuntu 22.04 v2.0.0: 5.1.2",
    ),
    _about(
        "system.new_machine_id",
        "high",
        "R-CONFIG",
        "The machine made an id of its own",
        "Logs, DHCP and licences tell machines apart by it.",
        "/etc/machine-id must be there and empty on the image.",
        "checks/probes/first_boot.py",
    ),
)

CONNECT: Final = tuple(one.id for one in _LOGIN)
SURVEY: Final = (*(one.id for one in _BASELINE), *(one.id for one in _BASE))
SEAL: Final = tuple(one.id for one in _SEALED)
TRACE: Final = tuple(one.id for one in _TRACE)
IMAGE: Final = tuple(one.id for one in _IMAGE)
FIRST_BOOT: Final = tuple(one.id for one in _FIRST_BOOT)
BOOT_CHECK: Final = (*CONNECT, *(one.id for one in _BOOTED), *FIRST_BOOT)
CASES: Final = {
    one.id: one for one in (*_LOGIN, *_BASELINE, *_BASE, *_TRACE, *_SEALED, *_IMAGE, *_BOOTED, *_FIRST_BOOT)
}
"""All of them by id."""
STEPS: Final[tuple[tuple[Moment, str, tuple[str, ...]], ...]] = (
    ("base", "connect", CONNECT),
    ("base", "survey", SURVEY),
    ("sealed", "trace", TRACE),
    ("sealed", "seal", SEAL),
    ("sealed", "image", IMAGE),
    ("booted", "boot-check", BOOT_CHECK),
)
"""Moment and name of each step that records cases, and their ids."""
