"""Run directories as bakes leave them, for the tests of what is made of them."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

from bake.checks.case_list import BOOT_CHECK, CONNECT, IMAGE, SEAL, SURVEY, TRACE
from bake.checks.cases import not_run
from bake.report.collect import collect
from bake.report.model import Report

NAME = "20261129-030709-9572df"
AMI = "ami-0c0ffee0c0ffee001"
BEGUN = {
    "event": "run", "at": "2026-11-29T03:07:09Z", "command": "bake", "profile": "g6e-ubuntu",
    "plan": "b251f123a8225c7e", "rehearsal": True,
    "prices": {"builder_hour": 2.0, "worker_hour": 3.0, "kept_month": 4.0},
}  # fmt: skip
PLAN = {
    "id": "b251f123a8225c7e",
    "profile": {
        "name": "g6e-ubuntu",
        "builder": {"region": "eu-north-1"},
        "weights": {"repo": "black-forest-labs/FLUX.1-dev", "precision": "bf16"},
    },
    "base": {"id": "ami-0ba5e0ba5e0ba5e01", "name": "a base", "owner": "amazon", "architecture": "x86_64"},
    "weights": {"files": {"a": {"bytes": 33}}},
    "lock": {"revision": "3de623fc", "files": {"a": {"bytes": 7, "sha256": "ab" * 32}}},
    "disk": {"parts": [{"name": "base AMI", "bytes": 5, "source": "written blocks"}]},
    "warnings": ["draws on the CPU"],
}
IDENTITY = {
    "command": "bake", "account": "123456789012", "operator": "arn:aws:iam::123456789012:role/bakery",
    "region": "eu-north-1", "bake_version": "0.1.0", "venue": "REHEARSAL", "differences": ["no GPU"],
}  # fmt: skip
IMAGE_FACTS = {
    "state": "good",
    "image": {"id": AMI, "name": "flux1", "snapshot": "snap-1", "imds_support": "v2.0"},
    "described": {
        "ImageId": AMI, "Architecture": "x86_64", "Public": False, "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sda1",
             "Ebs": {"SnapshotId": "snap-1", "VolumeSize": 80, "VolumeType": "gp3"}},
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
        ],
        "Tags": [{"Key": "bake:venue", "Value": "REHEARSAL"}],
    },
    "snapshots": [{"SnapshotId": "snap-1", "Encrypted": True, "KmsKeyId": "arn:aws:kms:key"}],
    "launch_permissions": [{"UserId": "210987654321"}],
}  # fmt: skip


def png(width: int = 256, height: int = 256) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    return b"\x89PNG\r\n\x1a\n" + chunk


def lines(*entries: Any) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def step(name: str, at: float, seconds: float, outcome: str = "done") -> list[dict[str, Any]]:
    ended = {"outcome": outcome, "seconds": seconds, "waited": 0.5}
    return [
        {"event": "step_started", "at": at, "step": name},
        {"event": "step_ended", "at": at + seconds, "step": name, **ended},
    ]


class Folder:
    """A run directory that a test fills."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "facts").mkdir(parents=True)
        (path / "logs").mkdir()

    def put(self, **files: Any) -> Folder:
        """Files by name with `_` for `-` and `__` for `/`; JSON unless it is text or bytes."""
        for key, content in files.items():
            name = key.replace("__", "/").replace("_", "-")
            if isinstance(content, bytes):
                (self.path / name).write_bytes(content)
            elif isinstance(content, str):
                (self.path / f"{name}.jsonl").write_text(content, encoding="utf-8")
            else:
                (self.path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return self

    def collect(self) -> Report:
        report = collect(self.path)
        assert Report.model_validate_json(report.model_dump_json()) == report
        return report


def results(moment: Any, ids: tuple[str, ...]) -> list[Any]:
    passed = [one.model_copy(update={"outcome": "passed"}) for one in not_run(moment, ids, "")]
    return [one.model_dump(mode="json") for one in passed]


STAGE = {"name": "libraries", "bytes": 430, "files": 9, "ranges": 12}


def whole(folder: Folder) -> Folder:
    """A bake that ended well."""
    journal = [
        BEGUN,
        {"event": "created", "at": "2026-11-29T03:08:00Z", "kind": "instance", "name": "x-builder",
         "id": "i-1", "what": "instance i-1"},
        {"event": "removed", "at": "2026-11-29T03:38:00Z", "what": "instance i-1"},
        {"event": "ended", "at": "2026-11-29T03:40:00Z", "outcome": "done"},
    ]  # fmt: skip
    events = [
        {"event": "began", "at": 0.0, "time": "2026-11-29T03:07:03Z"},
        *step("plan", 0.1, 3.5),
        {"event": "step_started", "at": 4.0, "step": "provision"},
        {"event": "unit_started", "at": 4.5, "unit": "prefetch"},
        {"event": "note", "at": 5.0, "text": "WARNING: /boot is tight"},
        {"event": "unit_ended", "at": 6.5, "unit": "prefetch", "outcome": "done", "seconds": 2.0},
        {"event": "step_ended", "at": 9.0, "step": "provision", "outcome": "done", "seconds": 5.0},
    ]  # fmt: skip
    drawing = {
        "width": 256, "height": 256, "ready_seconds": 7.0, "precision": "bf16", "device": "cuda",
        "prompt": "a lighthouse at dawn", "seed": 7, "steps": 4, "seconds": 1.5, "instance": "i-2",
        "instance_type": "g6e.xlarge", "memory_bytes": 34, "sha256": "",
    }  # fmt: skip
    folder.put(journal=lines(*journal), events=lines(*events), plan=PLAN, facts__identity=IDENTITY)
    folder.put(facts__image=IMAGE_FACTS, facts__boot_check=drawing)
    folder.put(facts__weights={"fetched": 7, "bytes": 7})
    folder.put(facts__checks_booted_boot_check=results("booted", BOOT_CHECK))
    folder.put(facts__checks_base_connect=results("base", CONNECT))
    folder.put(facts__checks_base_survey=results("base", SURVEY))
    folder.put(facts__checks_sealed_trace=results("sealed", TRACE))
    folder.put(facts__trace={"recorded": "start on cpu", "why": "", "sha256": "ab", "stages": [STAGE]})
    folder.put(facts__checks_sealed_seal=results("sealed", SEAL))
    folder.put(facts__checks_sealed_verify=[], facts__checks_booted_checks=[])
    folder.put(facts__checks_sealed_image=results("sealed", IMAGE))
    (folder.path / "first-image.png").write_bytes(png())
    (folder.path / "logs/seal.log").write_text("removed\n")
    (folder.path / "logs/empty.log").write_text("")
    return folder
