"""Reports to render: one of a good bake with something of everything, and others made from it."""

from __future__ import annotations

from datetime import date

from bake.checks.result import About, Check, Evidence, Waiver
from bake.report.model import (
    Agreed,
    Agreement,
    AgreementEntry,
    Attestation,
    AttestedSnapshot,
    BaseFacts,
    Change,
    Changes,
    Cost,
    ImageFacts,
    Inventory,
    Log,
    Note,
    Package,
    Part,
    Picture,
    Publication,
    Report,
    RunFacts,
    Scan,
    Span,
    Venue,
    Verdict,
    Volume,
    Vulnerability,
    WeightFile,
    Weights,
)
from tests.report.samples_of_starts import COLD_START, TRACE
from tests.report.samples_readied import COMPILED, UNUSED

REVISION = "3de623fc3c33e44ffbe2bad470d0f45bccf2eb21"
WAIVER = Waiver(
    check="security.private_keys",
    reason="the base's own test key, which opens nothing",
    approved_by="reviewer@example.com",
    risk="none: its public half is on no machine",
    until=date(2027, 1, 31),
)


def check(
    name: str = "users.no_passwords",
    outcome: str = "passed",
    *,
    moment: str = "sealed",
    title: str = "No account has a password: keys alone let people in",
    severity: str = "high",
    reason: str = "",
    evidence: tuple[Evidence, ...] = (Evidence(expected="none", found="none", by="getent shadow"),),
    waiver: Waiver | None = None,
    base: tuple[str, ...] = (),
) -> Check:
    """One check."""
    return Check.model_validate(
        {
            "about": About.model_validate(
                {
                    "id": name,
                    "group": name.partition(".")[0],
                    "title": title,
                    "severity": severity,
                    "requirements": ("R-OS",),
                    "rationale": "A password can be guessed by everybody who reaches port 22.",
                    "remedy": "Lock the account: `passwd --lock NAME`, in a script of provision/.",
                    "cis": "5.4.2.1",
                    "source": "checks/test_users.py:40",
                }
            ),
            "moment": moment,
            "outcome": outcome,
            "reason": reason,
            "evidence": evidence,
            "waiver": waiver,
            "base": base,
            "seconds": 0.012,
        }
    )


CHECKS = (
    check("system.base_is_known", moment="base", title="The base AMI's own findings are recorded"),
    check(base=("account that a password, or none, opens ec2-serial",)),
    check(
        "security.private_keys",
        "waived",
        title="No private key is on the machine",
        severity="critical",
        reason="expected none, found /opt/vendor/test.key",
        evidence=(Evidence(expected="none", found="/opt/vendor/test.key", by="the probe secrets"),),
        waiver=WAIVER,
    ),
    check(
        "drivers.gpus_answer",
        "not applicable",
        title="The builder's GPUs answer",
        reason="the builder has no GPU; the boot check asks the worker's own type",
        evidence=(),
    ),
    check("weights.files_are_the_locked_ones", title="Every file of the model is the locked one"),
    check("worker.ready", moment="booted", title="The worker is ready", severity="critical"),
    check("performance.ready_time", moment="booted", title="The worker is ready in time", severity="medium"),
)

BASE = Inventory(
    moment="base",
    kernel="6.8.0-1021-aws",
    os="Ubuntu 22.04.5 LTS",
    packages=(Package(kind="deb", name="openssl", version="3.0.2-0ubuntu1.18", arch="amd64"),),
    users={"ubuntu": "1000 1000 /home/ubuntu /bin/bash"},
    units={"ssh.service": "enabled"},
    ports={"tcp 0.0.0.0:22": "sshd"},
    setuid={"/usr/bin/sudo": "4755 root root"},
    versions={"kernel": "6.8.0-1021-aws", "python": "3.11.9"},
)
SEALED = BASE.model_copy(
    update={
        "moment": "sealed",
        "packages": (
            *BASE.packages,
            Package(kind="python", name="torch", version="2.13.0", where="/opt/flux-worker/venv"),
            Package(kind="python", name="diffusers", version="0.42.1", where="/opt/flux-worker/venv"),
        ),
        "units": {**BASE.units, "flux-worker.service": "enabled"},
        "versions": {**BASE.versions, "torch": "2.13.0", "diffusers": "0.42.1", "driver": "580.65.06"},
    }
)

GOOD = Report(
    venue=Venue(
        name="REHEARSAL",
        differences=(
            "the builder and the worker are containers on one machine, without a GPU",
            "the local Hub serves a tiny FLUX with random weights: the pictures are noise",
        ),
    ),
    verdict=Verdict(state="good", sentence="ami-0c0ffee0c0ffee001 is good: it booted and drew an image"),
    run=RunFacts(
        id="20261129-030709-9572df",
        command="bake",
        attempts=1,
        bake_version="0.1.0",
        profile="g6e-ubuntu",
        plan="b251f123a8225c7e",
        account="123456789012",
        region="eu-north-1",
        operator="arn:aws:iam::123456789012:role/bakery",
        started="2026-11-29T03:07:03Z",
        finished="2026-11-29T03:08:00Z",
    ),
    image=ImageFacts(
        id="ami-0c0ffee0c0ffee001",
        name="flux1-dev-g6e-ubuntu-20261129-030709-9572df",
        created="2026-11-29T03:07:46Z",
        architecture="x86_64",
        boot_mode="uefi-preferred",
        imds_support="v2.0",
        ena_support=True,
        virtualization="hvm",
        root_device="/dev/sda1",
        public=False,
        volumes=(
            Volume(
                device="/dev/sda1",
                snapshot="snap-0c0ffee0c0ffee001",
                size_gib=80,
                type="gp3",
                encrypted=True,
                kms_key="arn:aws:kms:eu-north-1:123456789012:key/11111111-2222-3333-4444-555555555555",
                delete_on_termination=True,
            ),
        ),
        launch_permissions=("210987654321",),
        tags={"bake:profile": "g6e-ubuntu", "bake:state": "good", "bake:venue": "REHEARSAL"},
    ),
    base=BaseFacts(
        id="ami-0ba5e0ba5e0ba5e01",
        name="Deep Learning OSS (Ubuntu 22.04)",
        owner="amazon",
        architecture="x86_64",
    ),
    agreement=Agreement(
        file="profiles/g6e-ubuntu.lock.yaml",
        facts=(
            Agreed(fact="region", value="eu-north-1", origin="profiles/g6e-ubuntu.yaml:10", state="agreed"),
            Agreed(
                fact="root_volume.size_gib", value="80", origin="profiles/g6e-ubuntu.yaml:17", state="agreed"
            ),
        ),
        history=(
            AgreementEntry(
                when="2026-11-01T10:00:00Z",
                who="operator@example.com",
                why="first bake",
                commit="0123456789abcdef0123456789abcdef01234567",
                changed=("region: eu-north-1", "root_volume.size_gib: 80"),
            ),
        ),
    ),
    checks=CHECKS,
    waivers=(WAIVER,),
    changed_on_machine=Changes(
        before="base",
        after="sealed",
        changes=(
            Change(kind="package", name="python torch", before=None, after="2.13.0", why="the worker's lock"),
            Change(kind="unit", name="flux-worker.service", before=None, after="enabled", why="the worker"),
            Change(
                kind="setuid", name="/usr/bin/newgidmap", before=None, after="4755 root root", meant=False
            ),
        ),
    ),
    since_last_good=Changes(
        before="ami-0c0ffee0c0ffee000",
        after="ami-0c0ffee0c0ffee001",
        changes=(
            Change(kind="package", name="deb openssl", before="3.0.2-0ubuntu1.17", after="3.0.2-0ubuntu1.18"),
        ),
    ),
    last_good="compared with ami-0c0ffee0c0ffee000 of 2026-11-22",
    inventories=(BASE, SEALED),
    pictures=(
        Picture(
            title="First image",
            file="first-image.png",
            sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            width=256,
            height=256,
            prompt="a lighthouse at dawn",
            seed=7,
            steps=4,
            precision="bf16",
            device="cuda",
            instance="i-0c0ffee0c0ffee001",
            instance_type="g6e.xlarge",
            ready_seconds=41.0,
            seconds=1.9,
            memory_bytes=34_000_000_000,
        ),
    ),
    publication=(
        Publication(what="copy", region="eu-west-1", id="ami-0fedcba9876543210", state="published"),
        Publication(
            what="SSM parameter",
            region="eu-north-1",
            id="/flux/ami = ami-0123456789abcdef0",
            state="failed",
            why="/flux/ami in eu-north-1 holds <script>, which somebody else wrote",
            by_hand="aws ssm put-parameter --name /flux/ami",
        ),
    ),
    weights=Weights(
        repo="black-forest-labs/FLUX.1-dev",
        revision=REVISION,
        precision="bf16",
        licence="FLUX.1 [dev] Non-Commercial License",
        licence_url="https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md",
        files=(
            WeightFile(
                path="model_index.json", bytes=536, hash="git-sha1:45a8b1c5ea9b0ab46ad2b93a2b9f41e1bc5c7d0b"
            ),
            WeightFile(
                path="vae/diffusion_pytorch_model.safetensors", bytes=167666902, hash="sha256:" + "ab" * 32
            ),
        ),
        bytes=167667438,
        planned_bytes=33745689731,
        fetched=True,
    ),
    trace=TRACE,
    compiled=COMPILED,
    unused_libraries=UNUSED,
    disk=(
        Part(name="base AMI", bytes=24_000_000_000, measured=True),
        Part(name="packages", bytes=2_000_000_000, measured=True),
        Part(name="environment", bytes=7_000_000_000, measured=True),
        Part(name="weights", bytes=33_700_000_000, measured=True),
        Part(name="free", bytes=17_700_000_000, measured=True),
    ),
    timeline=(
        Span(name="plan", began=0.0, seconds=3.5, outcome="done", waited=0.0),
        Span(name="launch", began=3.6, seconds=20.0, outcome="done", waited=19.0),
        Span(name="prefetch", began=24.0, seconds=90.0, outcome="done", lane="builder"),
        Span(name="provision", began=24.0, seconds=160.0, outcome="done", waited=159.0),
        Span(name="verify", began=184.0, seconds=9.0, outcome="done", waited=8.0),
    ),
    cold_start=COLD_START,
    cost=Cost(hours=0.31, dollars=0.58, kept_month=4.0),
    attestation=Attestation(
        digest="cb" * 32,
        snapshots=(AttestedSnapshot(device="/dev/sda1", snapshot="snap-1", gib=80, digest="cb" * 32),),
        key="3e" * 32,
        signed="signed with a key that this rehearsal made for itself",
        file="attestation.intoto.jsonl",
        blocks=3681,
        seconds=12.5,
    ),
    scan=Scan(
        scanner="grype",
        version="0.104.0",
        database="2026-11-28T06:00:00Z",
        at="2026-11-29T03:08:30Z",
        covered=("deb", "python"),
        not_covered=("program",),
        fail_on="critical",
        vulnerabilities=(
            Vulnerability(
                id="CVE-2026-0001",
                severity="high",
                package="openssl",
                version="3.0.2-0ubuntu1.18",
                fixed_in="3.0.2-0ubuntu1.19",
                url="https://ubuntu.com/security/CVE-2026-0001",
            ),
        ),
    ),
    warnings=("draws on the CPU",),
    notes=(Note(text="provision took 160 s", warning=False), Note(text="/boot is tight", warning=True)),
    logs=(Log(file="logs/seal.log", bytes=1297, tail="remove /opt/bake: 26956 files\n"),),
    plan={"id": "b251f123a8225c7e"},
)

FAILED = GOOD.model_copy(
    update={
        "verdict": Verdict(
            state="failed",
            sentence="1 of 7 checks failed, so no AMI was made",
            error="users.no_passwords: expected none, found root",
            hint="the whole report: report.html",
            exit_code=4,
        ),
        "image": None,
        "pictures": (),
        "since_last_good": None,
        "checks": (
            check(
                outcome="failed",
                reason="expected none, found root",
                evidence=(Evidence(expected="none", found="root", by="getent shadow"),),
            ),
            *CHECKS[2:5],
            check("worker.ready", "not run", moment="booted", reason="no image was made"),
        ),
    }
)
"""A bake that ended at its checks."""

HOSTILE = GOOD.model_copy(
    update={
        "inventories": (
            BASE,
            SEALED.model_copy(
                update={
                    "packages": (
                        *SEALED.packages,
                        Package(kind="deb", name="<script>alert(1)</script>", version="1\x00\x1b[31m"),
                        Package(kind="python", name="a\u202egnp.exe", version="]]>--><!--"),
                    )
                }
            ),
        ),
        "logs": (
            Log(
                file="logs/x.log",
                bytes=1_000_000,
                tail="<img src=x onerror=alert(1)> \x1b[2J" + "A" * 1_000_000,
            ),
        ),
        "notes": (Note(text="</style></script><script>alert(2)</script>\x00\ud7ff\u200f", warning=True),),
        "checks": (
            check(
                title="<b>bold</b> & \u202eright to left",
                outcome="failed",
                reason="\x1b[31mred\x00]]>",
                evidence=(Evidence(expected="`a`|b\n```", found="</details><h1>x", by="echo '\x07'"),),
            ),
            *CHECKS,
        ),
    }
)
"""Content that a machine may hold, and that must stay text."""
