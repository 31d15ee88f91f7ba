"""Render a plan as text and as JSON. Neither contains the token."""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import asdict
from typing import Any

from bake.account.instance_types import InstanceType
from bake.planning import attesting
from bake.planning import disk as disk_of
from bake.planning import memory as memory_of
from bake.planning.builder import BuilderMemory
from bake.planning.hardware import builder_setting, worker_setting
from bake.planning.memory import Memory
from bake.planning.plan import Plan
from bake.weights.flux import GIB

WIDTH = 100
MARKS = {"fits": "✓", "tight": "!", "may not fit": "!"}


def as_dict(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON has it, in bytes, MiB, seconds, MB/s and dollars."""
    return {
        "id": plan.id,
        "profile": plan.profile.model_dump(mode="json", exclude={"weights": {"token"}}),
        "base": asdict(plan.launch.base),
        "follow": _follow(plan),
        "instance_types": [asdict(kind) for kind in plan.launch.types],
        "worker_instance_types": [asdict(kind) for kind in plan.launch.worker_types],
        "network": asdict(plan.launch.network),
        "reach": asdict(plan.launch.reach),
        "cache": plan.weights.cache,
        "weights": asdict(plan.weights.files),
        "disk": {
            **asdict(plan.image.disk),
            "needed": plan.image.disk.needed,
            "free": plan.image.disk.free,
            "verdict": plan.image.disk.verdict,
        },
        "memory": [
            {**asdict(one), "needed": one.needed, "verdict": one.verdict} for one in plan.verify.memory
        ],
        "builder_memory": [asdict(one) for one in plan.verify.builder_memory],
        "own_checks": [str(file) for file in plan.verify.files],
        "waivers": [waiver.model_dump(mode="json") for waiver in plan.verify.waivers],
        "reports": plan.image.reports,
        "notices": plan.profile.notices,
        "attesting": _attesting(plan),
        "estimates": {
            **asdict(plan.estimates),
            "seconds": plan.estimates.seconds,
            "bake_dollars": plan.estimates.bake_dollars,
            "month_dollars": plan.estimates.month_dollars,
        },
        "facts": {fact.name: {"value": fact.value, "origin": fact.origin} for fact in plan.facts},
        "origins": dict(plan.origins),
        "worker": {**asdict(plan.provision.worker), "version": plan.provision.worker.version},
        "drivers": {
            **asdict(plan.provision.drivers),
            "backend": plan.provision.drivers.backend,
            "drawn_on": plan.provision.drivers.drawn_on,
        },
        "inputs": dict(plan.inputs),
        "identity": {group: dict(found) for group, found in plan.identity.parts.items()},
        "egress": [asdict(one) for one in plan.provision.egress],
        "warnings": list(plan.warnings),
        "checked": list(plan.checked),
        "unchecked": list(plan.unchecked),
        "copies": [asdict(one) for one in plan.copies],
        "preflight": [asdict(one) for one in plan.preflight],
        "unbakeable": plan.unbakeable,
        "differences": list(plan.sources.differences),
    }


def _attesting(plan: Plan) -> dict[str, Any] | None:
    found = plan.attesting
    if found is None:
        return None
    return {**asdict(found), "requests": found.requests, "bytes": found.bytes}


def as_text(plan: Plan) -> str:
    """Return the plan as text."""
    sections = [
        [f"Plan {plan.id}: profile {plan.profile.name}"],
        _table("What is used", _used(plan)),
        _made(plan),
        _verdict(f"{plan.profile.root_volume.size_gib} GiB root volume", plan.image.disk.verdict)
        + [f"    {line}" for line in disk_of.arithmetic(plan.image.disk)],
        *(_memory(plan, memory) for memory in plan.verify.memory),
        *(_builder_memory(memory) for memory in plan.verify.builder_memory),
        _table("Estimates, rough", _estimates(plan)),
        _table("What the builder must reach", _egress(plan)),
        _waivers(plan),
        _preflight(plan),
        _points("Checked", plan.checked, "✓"),
        _points("Not checked", plan.unchecked, "?"),
        _points("Warnings", plan.warnings, "!"),
        _points("How this rehearsal differs from the real bake", plan.sources.differences),
        _points("This can be planned, and not baked yet", (plan.unbakeable,) if plan.unbakeable else ()),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section)


def _follow(plan: Plan) -> dict[str, str | None] | None:
    """What a newer AMI of the family is to a bake; None where the profile names an id."""
    base, found = plan.profile.base, plan.base
    if base.family is None:
        return None
    newest = found.newest.id if found.newest else None
    return {"family": base.family, "how": base.following, "newest": newest, "agreed": found.agreed_id}


def _used(plan: Plan) -> list[tuple[str, str, str]]:
    """Rows of name, value and origin."""
    profile, base, where = plan.profile, plan.launch.base, plan.launch.network
    drivers = plan.provision.drivers
    setting = "ami" if profile.base.ami else "ssm" if profile.base.ssm else "name"
    rows = [
        ("base AMI", base.id, f"base.{setting}"),
        ("", f"{base.name} ({base.architecture}, {base.root_gib} GiB)", ""),
        *(
            [("", f"{profile.base.following}: the newest of {profile.base.family}", "base.follow")]
            if profile.base.family
            else []
        ),
        ("system", f"{profile.base.os}: user {plan.system.user}, {plan.system.home}", "base.os"),
        *([("", f"without {', '.join(profile.base.remove)}", "base.remove")] if profile.base.remove else []),
        (
            "builder",
            f"{' or '.join(profile.builder.types)} in {profile.builder.region}, {profile.builder.market}",
            builder_setting(profile),
        ),
        *(("", _hardware(kind, profile.weights.scratch), "") for kind in plan.launch.types),
        *_workers(plan),
        ("driver", str(drivers), "nvidia.driver" if profile.base.accelerator == "cuda" else ""),
        *(("", f"{package} {version}", "") for package, version in drivers.packages.items()),
        ("backend", drivers.told, ""),
        ("network", f"{where.subnet} in {where.zone}", "builder.subnet"),
        ("", where.vpc or "", ""),
        ("", where.security_group, "builder.security_group"),
        *_reached(plan),
        ("root volume", _volume(plan), "root_volume.size_gib"),
        ("weights", f"{profile.weights.repo} at {profile.weights.revision[:12]}", "weights.revision"),
        ("", _precision(plan), "weights.precision"),
        ("cache", plan.weights.cache, "weights.cache"),
        ("mirror", profile.weights.mirror or "none", "weights.mirror"),
        ("worker", f"queue and event bus in {profile.worker.region}", "worker.region"),
        ("code", str(plan.provision.worker), "worker.source"),
        ("image", profile.image.name.replace("{profile}", profile.name), "image.name"),
        ("", _sharing(plan), "image.share_with"),
        *_reviewed(plan),
    ]
    return [(name, value, plan.origins.get(path, "")) for name, value, path in rows]


def _reached(plan: Plan) -> list[tuple[str, str, str]]:
    """Rows of how the builder is reached, where the profile says so."""
    reach, rows = plan.launch.reach, []
    if reach.address != "auto":
        rows.append(("", f"reached at its {reach.address} address", "builder.address"))
    if reach.proxy:
        rows.append(("", f"reached through {shlex.join(reach.proxy)}", "builder.proxy_command"))
    return rows


def _egress(plan: Plan) -> list[tuple[str, str, str]]:
    """Rows of hosts and reasons."""
    return [
        (host, ("" if one.always else "maybe: ") + one.why if number == 0 else "", "")
        for one in plan.provision.egress
        for number, host in enumerate(one.hosts)
    ]


def _workers(plan: Plan) -> list[tuple[str, str, str]]:
    """Name the workers' types, if they are not the builder's."""
    if not plan.profile.worker.types:
        return []
    names = f"{' or '.join(plan.profile.worker.types)}: what the image is for, and its boot check"
    return [
        ("workers", names, worker_setting(plan.profile)),
        *(("", _hardware(kind), "") for kind in plan.launch.worker_types),
    ]


def _precision(plan: Plan) -> str:
    weights = plan.profile.weights
    if weights.precision == "bf16":
        return "in bf16"
    source = "stay beside it" if weights.keep_source else "are removed from the image"
    source = "lie on the builder's instance store meanwhile" if weights.scratch else source
    return f"in int8, made during the bake; the bf16 files {source}"


def _hardware(kind: InstanceType, scratch: str | None = None) -> str:
    device = f", {kind.device}" if kind.device else ""
    use = "take the bf16 files while int8 is made" if scratch else "stay unused"
    store = f"; {kind.instance_store_gb} GB of instance store {use}" if kind.instance_store_gb else ""
    return f"{kind.name}: {kind.vcpus} vCPUs, {kind.memory_mib:,} MiB{device}{store}"


def _volume(plan: Plan) -> str:
    volume = plan.profile.root_volume
    parts = [f"{volume.size_gib} GiB {volume.type}"]
    parts += [f"{volume.iops:,} IOPS"] if volume.iops else []
    parts += [f"{volume.throughput} MiB/s"] if volume.throughput else []
    parts += ["encrypted"] if volume.kms_key else []
    return ", ".join(parts)


def _sharing(plan: Plan) -> str:
    accounts = plan.image.share_with
    return f"shared with {', '.join(accounts)}" if accounts else "private"


def _reviewed(plan: Plan) -> list[tuple[str, str, str]]:
    """Rows of the profile's own checks, of where reports go to as well, and of the bus of notices."""
    files, reports = plan.verify.files, plan.image.reports
    rows = [("own checks" if number == 0 else "", file.name, "checks") for number, file in enumerate(files)]
    rows += [("reports", f"go to {reports}, too", "reports")] if reports else []
    return [*rows, *([("notices", f"go to {bus}", "notices")] if (bus := plan.profile.notices) else [])]


def _preflight(plan: Plan) -> list[str]:
    """What AWS was asked without anything being created."""
    texts = tuple(f"{one.question}: {one.answer}" for one in plan.preflight)
    return _points("Preflight, asked of AWS without creating anything", texts)


def _waivers(plan: Plan) -> list[str]:
    """Say what is waived by whom, until when, why, and at what risk."""
    waivers = plan.verify.waivers
    return _points(
        "Waived, so that a failure does not stand in the way",
        tuple(
            f"{one.check} until {one.until}, by {one.approved_by}: {one.reason} (risk: {one.risk})"
            for one in waivers
        ),
    )


def _made(plan: Plan) -> list[str]:
    hours = plan.estimates.seconds / 3600
    temporary = ["a security group"] if plan.launch.network.security_group == "temporary" else []
    things = [
        "a key pair",
        *temporary,
        f"a builder ({plan.profile.builder.market})",
        "one instance of the new image",
    ]
    return [
        f"What will be created and removed again, in about {hours:.1f} h and the time of the snapshot:",
        f"  + {', '.join(things)}",
        "  + for its first job: two queues, a bucket, an event bus, a rule",
        "What stays:",
        f"  + one AMI and its snapshot of {plan.profile.root_volume.size_gib} GiB",
        *_published(plan),
    ]


def _published(plan: Plan) -> list[str]:
    """Lines of what is published of a good AMI."""
    wanted = plan.image.wanted
    lines = [f"  + a copy in {one.region}" for one in plan.copies]
    if wanted.parameter is not None:
        where = ", ".join((plan.profile.builder.region, *wanted.regions))
        lines.append(f"  ~ the SSM parameter {wanted.parameter} in {where}")
    if wanted.template is not None:
        lines.append(f"  + a version of the launch template {wanted.template}; its default stays")
    return lines


def _verdict(what: str, verdict: str) -> list[str]:
    return [f"{MARKS[verdict]} {what}: {verdict}"]


def _memory(plan: Plan, memory: Memory) -> list[str]:
    lines = _verdict(f"{memory.instance_type} in {memory.precision}", memory.verdict)
    lines += [f"    {line}" for line in memory_of.arithmetic(memory)]
    return lines + [f"    the worker needs {need} for this" for need in memory_of.settings(memory)]


def _builder_memory(memory: BuilderMemory) -> list[str]:
    # What does not fit is among the problems: there is no plan then.
    lines = _verdict(f"{memory.instance_type} as builder", "fits")
    spare = f"{memory.host - memory.needed:,} MiB to spare"
    lines.append(f"    {memory.needed:7,} MiB  of {memory.host:,} MiB host RAM; {spare}")
    return [*lines, f"    {'':11}  {memory.why}"]


def _times(plan: Plan) -> list[tuple[str, str, str]]:
    """Rows of hours and dollars: builder and boot check apart if their types differ."""
    estimates, apart = plan.estimates, bool(plan.profile.worker.types)
    moved = estimates.moved_bytes + (0 if apart else estimates.cold_start_bytes)
    remark = f"moves {moved / 1e9:.0f} GB at {estimates.speed:.0f} MB/s, {estimates.limit}"
    if not apart:
        return [("builder", f"{estimates.seconds / 3600:.1f} h{_dollars(estimates.bake_dollars)}", remark)]
    return [
        ("builder", f"{estimates.builder_seconds / 3600:.1f} h{_dollars(estimates.builder_dollars)}", remark),
        (
            "boot check",
            f"{estimates.boot_check_seconds / 3600:.1f} h{_dollars(estimates.boot_check_dollars)}",
            f"on {plan.launch.worker_types[0].name}",
        ),
    ]


def _estimates(plan: Plan) -> list[tuple[str, str, str]]:
    estimates, disk = plan.estimates, plan.image.disk
    bound = "at most " if estimates.at_most else ""
    removed = f"{disk.removed / GIB:.0f} GB more where the volume can't discard freed blocks"
    removed = removed if disk.removed else ""
    return [
        *_times(plan),
        *([("", "", line) for line in textwrap.wrap(estimates.download_note, 76)]),
        (
            "snapshot",
            f"{bound}{estimates.snapshot_gb:.0f} GB-month{_dollars(estimates.month_dollars, ' a month')}",
            removed,
        ),
        *attesting.rows(plan.attesting, plan.profile.builder.region),
        *_copies(plan),
        *_cold_start(plan),
    ]


def _copies(plan: Plan) -> list[tuple[str, str, str]]:
    """Rows of what each copy costs."""
    bound = "at most " if plan.estimates.at_most else ""
    return [
        (
            f"copy in {one.region}",
            f"{bound}{one.gb:.0f} GB-month{_dollars(one.month_dollars, ' a month')}",
            f"{one.gb:.0f} GB cross regions once, which EC2 charges for",
        )
        for one in plan.copies
    ]


def _cold_start(plan: Plan) -> list[tuple[str, str, str]]:
    """Rows of the seconds to read the weights, from a full volume and from a new one."""
    found = plan.estimates
    rows = [
        (
            "cold start",
            f"{found.cold_start_seconds + found.hydration_seconds:.0f} s",
            f"reads {found.cold_start_bytes / 1e9:.1f} GB: {found.cold_start_seconds:.0f} s "
            "from a full volume,",
        ),
        (
            "",
            "",
            f"{found.hydration_seconds:.0f} s more from a new one, filled at {found.hydration_rate:.0f} MB/s",
        ),
    ]
    source = [("", "", line) for line in textwrap.wrap(f"({found.hydration_source};", 76)]
    best = (
        f"a launch template's VolumeInitializationRate fills it in {found.initialized_seconds:.0f} s at best)"
    )
    return [*rows, *source, ("", "", best)]


def _dollars(amount: float | None, per: str = "") -> str:
    return ", price not known here" if amount is None else f", ${amount:.2f}{per}"


def _table(title: str, rows: list[tuple[str, str, str]]) -> list[str]:
    """Align rows of name and value, with remarks after the longest value."""
    names = max(len(name) for name, _, _ in rows)
    values = max(len(value) for _, value, remark in rows if remark) if any(row[2] for row in rows) else 0
    return [
        f"{title}:",
        *(
            f"  {name:<{names}}  {value:<{values if remark else 0}}  {remark}".rstrip()
            for name, value, remark in rows
        ),
    ]


def _points(title: str, texts: tuple[str, ...], mark: str = "-") -> list[str]:
    if not texts:
        return []
    lines = [f"{title}:"]
    for text in texts:
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {mark} ", subsequent_indent="    ")
    return lines
