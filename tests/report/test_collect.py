"""The report of a run, made of its directory: of whole runs, failed, cut, torn and hostile ones."""

from __future__ import annotations

import json
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from bake.checks.case_list import BOOT_CHECK, CONNECT, IMAGE, SEAL, SURVEY
from bake.checks.cases import not_run
from bake.errors import UsageError
from bake.report import writing
from bake.report.collect import collect
from bake.report.model import Report
from tests.report import samples

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


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / NAME)


def results(moment: Any, ids: tuple[str, ...]) -> list[Any]:
    passed = [one.model_copy(update={"outcome": "passed"}) for one in not_run(moment, ids, "")]
    return [one.model_dump(mode="json") for one in passed]


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
    folder.put(facts__checks_sealed_seal=results("sealed", SEAL))
    folder.put(facts__checks_sealed_image=results("sealed", IMAGE))
    (folder.path / "first-image.png").write_bytes(png())
    (folder.path / "logs/seal.log").write_text("removed\n")
    (folder.path / "logs/empty.log").write_text("")
    return folder


def test_a_whole_run_is_told_whole(folder: Folder) -> None:
    report = whole(folder).collect()
    assert (report.venue.name, report.venue.differences) == ("REHEARSAL", ("no GPU",))
    assert (report.verdict.state, report.verdict.exit_code) == ("good", 0)
    assert report.verdict.sentence == f"{AMI} is good: it booted and drew an image"
    assert report.run.operator == "arn:aws:iam::123456789012:role/bakery"
    assert (report.run.started, report.run.finished) == ("2026-11-29T03:07:03Z", "2026-11-29T03:40:00Z")
    assert report.image is not None and report.base is not None
    (volume,) = report.image.volumes
    assert (volume.size_gib, volume.encrypted, volume.kms_key) == (80, True, "arn:aws:kms:key")
    assert report.image.launch_permissions == ("210987654321",)
    (picture,) = report.pictures
    assert (picture.width, picture.seed, picture.seconds, picture.memory_bytes) == (256, 7, 1.5, 34)
    assert report.weights is not None
    assert (report.weights.bytes, report.weights.planned_bytes, report.weights.fetched) == (7, 33, True)
    assert report.weights.files[0].hash == f"sha256:{'ab' * 32}"
    assert report.cost is not None and (report.cost.hours, report.cost.dollars) == (0.5, 1.0)
    assert [log.file for log in report.logs] == ["logs/seal.log"]
    assert [(note.text, note.warning) for note in report.notes] == [("/boot is tight", True)]
    assert [check.moment for check in report.checks] == sorted(
        (check.moment for check in report.checks), key=("base", "sealed", "booted").index
    )
    assert {check.outcome for check in report.checks} == {"passed"}


def test_the_timeline_has_the_builders_units_beside_the_steps(folder: Folder) -> None:
    plan, provision, prefetch = whole(folder).collect().timeline
    assert (plan.name, plan.began, plan.seconds, plan.waited) == ("plan", 0.1, 3.5, 0.5)
    assert (provision.lane, prefetch.lane) == ("bake", "builder")
    assert provision.began < prefetch.began < provision.began + provision.seconds


def failed(folder: Folder, *told: Any, outcome: str = "failed") -> Folder:
    """A bake that ended in its survey."""
    events = [
        {"event": "began", "at": 0.0, "time": "t"},
        *step("connect", 1, 1),
        *step("fit", 2, 1, "failed"),
    ]
    ended = {"event": "ended", "at": "2026-11-29T03:40:00Z", "outcome": outcome}
    folder.put(journal=lines(BEGUN, ended), events=lines(*events, *told), plan=PLAN)
    folder.put(facts__identity=IDENTITY, facts__checks_base_connect=results("base", CONNECT))
    return folder


def test_a_failed_run_says_what_was_not_run_and_why(folder: Folder) -> None:
    told = {
        "event": "failed",
        "at": 4,
        "message": "40 GiB are missing:\n  more",
        "hint": "choose",
        "exit_code": 2,
    }
    report = failed(folder, told).collect()
    assert report.verdict.state == "failed"
    assert report.verdict.sentence == "failed in step 'fit', so no AMI was made: 40 GiB are missing"
    assert (report.verdict.hint, report.verdict.exit_code) == ("choose", 2)
    assert report.image is None and report.pictures == ()
    outcomes = {check.id: check for check in report.checks if check.moment == "booted"}
    assert set(outcomes) == set(BOOT_CHECK)
    assert outcomes["worker.ready"].outcome == "not run"
    assert "the run ended before: 40 GiB are missing" in outcomes["worker.ready"].reason
    assert [one.outcome for one in report.checks[: len(CONNECT)]] == ["passed"] * len(CONNECT)


def test_failed_checks_are_counted_in_the_verdict(folder: Folder) -> None:
    check = samples.check(outcome="failed", reason="found root").model_dump(mode="json")
    folder.put(facts__checks_sealed_verify=[check])
    report = failed(folder, {"event": "failed", "at": 4, "message": "1 of 80", "exit_code": 4}).collect()
    assert (
        report.verdict.sentence == f"1 of {len(CONNECT) + 1} checks failed in step 'fit', so no AMI was made"
    )


def test_an_interrupted_run_is_no_failure_and_names_what_it_left(folder: Folder) -> None:
    left = "instance i-1; remove it with: aws ec2 terminate-instances"
    told = {
        "event": "failed",
        "at": 4,
        "message": left,
        "left_behind": [left],
        "cause": "SIGTERM",
        "exit_code": 6,
    }
    report = failed(folder, told, outcome="interrupted").collect()
    assert (report.verdict.state, report.verdict.exit_code) == ("interrupted", 6)
    assert report.verdict.left_behind == (left,)


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        pytest.param("bad", f"{AMI} is bad and was removed: no worker", id="bad"),
        pytest.param("unproven", f"{AMI} is kept, and unproven: no worker", id="unproven"),
        pytest.param("good", f"{AMI} is good: it booted and drew an image; after that the run failed: "
                     "no worker", id="good"),
    ],
)  # fmt: skip
def test_the_ami_decides_the_verdict(folder: Folder, state: str, sentence: str) -> None:
    failed(folder, {"event": "failed", "at": 4, "message": "no worker:\nx", "exit_code": 4})
    verdict = folder.put(facts__image={**IMAGE_FACTS, "state": state}).collect().verdict
    assert (verdict.state, verdict.sentence) == (state, sentence)


def test_a_cut_run_has_a_report_as_far_as_it_came(folder: Folder) -> None:
    """The power went in the middle of a line."""
    begun = {"event": "step_started", "at": 4.0, "step": "provision"}
    torn = lines({"event": "began", "at": 0.0, "time": "t"}, *step("connect", 1, 1), begun) + '{"event": "no'
    folder.put(journal=lines(BEGUN) + '{"ev', events=torn, plan=PLAN, facts__identity=IDENTITY)
    report = folder.collect()
    assert report.verdict.state == "unfinished"
    assert report.verdict.sentence == "it has not ended: it goes on, or was cut in step 'provision'"
    assert (report.timeline[-1].outcome, report.run.finished) == ("running", None)
    assert report.verdict.exit_code is None
    assert {check.reason for check in report.checks} == {"the run has not come to it"}


def test_each_attempt_of_a_resumed_run_has_its_clock(folder: Folder) -> None:
    began = {"event": "began", "at": 0.0, "time": "t"}
    events = lines(began, *step("connect", 50, 1), began, *step("take over", 2, 1))
    folder.put(
        journal=lines(BEGUN, {"event": "resumed", "at": "2026-11-29T04:00:00Z"}), events=events, plan=PLAN
    )
    report = folder.collect()
    assert [(span.name, span.attempt, span.began) for span in report.timeline] == [
        ("connect", 1, 50.0),
        ("take over", 2, 2.0),
    ]
    assert report.run.attempts == 2


def test_a_boot_check_owes_the_checks_of_the_booted_machine_alone(folder: Folder) -> None:
    folder.put(journal=lines({**BEGUN, "command": "boot-check"}), plan=PLAN, facts__identity=IDENTITY)
    report = folder.collect()
    assert report.run.command == "boot-check"
    assert {check.moment for check in report.checks} == {"booted"}


def test_a_run_of_an_older_bake_says_where_its_checks_are(folder: Folder) -> None:
    kept = {"event": "kept", "at": "2026-11-29T03:39:00Z", "what": f"AMI {AMI} (flux1)"}
    ended = {"event": "ended", "at": "2026-11-29T03:40:00Z", "outcome": "done"}
    report = folder.put(journal=lines(BEGUN, kept, ended), plan=PLAN, manifest={}).collect()
    assert report.verdict.sentence == f"{AMI} is good: it booted and drew an image"
    assert report.checks == ()
    assert "manifest.json and junit.xml have its checks" in report.notes[-1].text


@pytest.mark.parametrize("content", ["", "null", "[]", '"x"', "{", '{"event": 1}', "\x00\xff", "[" * 100_000])
@pytest.mark.parametrize(
    "name",
    [
        "plan.json", "events.jsonl", "facts/identity.json", "facts/image.json", "facts/boot-check.json",
        "facts/agreement.json", "facts/checks-base-connect.json", "facts/inventory-base.json",
        "facts/intended.json", "facts/weights.json", "facts/scan.json", "base-content.json",
    ],
)  # fmt: skip
def test_a_file_with_anything_in_it_costs_its_part_alone(folder: Folder, name: str, content: str) -> None:
    whole(folder)
    (folder.path / name).write_text(content, encoding="utf-8")
    report = folder.collect()
    assert report.run.id == NAME
    if name != "facts/image.json":
        assert report.verdict.state == "good"
    if name not in ("facts/boot-check.json", "plan.json"):
        assert report.pictures


@pytest.mark.parametrize("wrong", [None, 1, "x", [], [1], {"x": 1}, {"a": None}], ids=repr)
@pytest.mark.parametrize(
    "name", ["plan", "facts__identity", "facts__image", "facts__boot_check", "facts__weights"]
)
def test_values_of_another_kind_are_named(folder: Folder, name: str, wrong: Any) -> None:
    """As a person, or another version of bake, may have left them."""
    original = {"plan": PLAN, "facts__identity": IDENTITY, "facts__image": IMAGE_FACTS}.get(
        name, {"fetched": 1}
    )
    whole(folder).put(**{name: dict.fromkeys(original, wrong)})
    assert folder.collect().run.id == NAME


def test_what_is_no_picture_is_none(folder: Folder) -> None:
    whole(folder)
    (folder.path / "first-image.png").write_bytes(b"<script>")
    assert folder.collect().pictures == ()


def test_a_replaced_picture_is_told(folder: Folder) -> None:
    whole(folder)
    told = json.loads((folder.path / "facts/boot-check.json").read_text())
    folder.put(facts__boot_check={**told, "sha256": "ab" * 32})
    (picture,) = folder.collect().pictures
    assert picture.note == "the file is another one than the boot check fetched"


def test_of_a_long_log_the_end_is_kept(folder: Folder) -> None:
    whole(folder)
    (folder.path / "logs/long.log").write_bytes(b"\xff\x00" + b"x" * 5_000_000 + b"\nlast\n")
    (log,) = [one for one in folder.collect().logs if one.file == "logs/long.log"]
    assert (log.bytes, log.tail.endswith("last\n"), len(log.tail) < 9000) == (5_000_008, True, True)


@pytest.mark.parametrize("made", [True, False], ids=["empty", "not-there"])
def test_any_other_folder_is_refused(tmp_path: Path, made: bool) -> None:
    if made:
        (tmp_path / "other").mkdir()
    with pytest.raises(UsageError, match="is not a run directory: it has neither a journal nor a plan"):
        collect(tmp_path / "other")


def test_it_is_compared_with_the_last_good_image_of_its_profile_and_venue(folder: Folder) -> None:
    inventory = {"inventory": samples.SEALED.model_dump(mode="json"), "disk": {}}
    whole(folder).put(facts__inventory_sealed=inventory)
    parent = folder.path.parent

    def earlier(
        name: str, state: str = "good", venue: str = "REHEARSAL", profile: str = "g6e-ubuntu"
    ) -> None:
        other = samples.GOOD.model_copy(
            update={
                "verdict": samples.GOOD.verdict.model_copy(update={"state": state}),
                "venue": samples.GOOD.venue.model_copy(update={"name": venue}),
                "run": samples.GOOD.run.model_copy(update={"id": name, "profile": profile}),
            }
        )
        (parent / name).mkdir()
        (parent / name / "report.json").write_text(other.model_dump_json())

    assert folder.collect().since_last_good is None
    earlier("20261101-000000-aaaaaa")
    earlier("20261102-000000-aaaaaa", state="bad")
    earlier("20261103-000000-aaaaaa", venue="AWS")
    earlier("20261104-000000-aaaaaa", profile="other")
    earlier("20261230-000000-aaaaaa")
    (parent / "20261105-000000-aaaaaa").mkdir()
    (parent / "20261105-000000-aaaaaa" / "report.json").write_text("{")
    report = folder.collect()
    assert report.last_good == f"compared with {AMI} of run 20261101-000000-aaaaaa"
    assert report.since_last_good is not None


def test_all_formats_are_written_and_summed(folder: Folder, tmp_path: Path) -> None:
    notes: list[str] = []
    report = writing.write(whole(folder).path, notes.append)
    assert notes == []
    assert Report.model_validate_json((folder.path / "report.json").read_bytes()) == report
    listed = {line[66:] for line in (folder.path / "SHA256SUMS").read_text().splitlines()}
    assert {*writing.FILES, "facts/image.json", "first-image.png"} <= listed
    again = tmp_path / "moved" / NAME
    shutil.copytree(folder.path, again)
    assert writing.write(again) == report  # nothing but the files counts


def test_a_format_that_fails_does_not_cost_the_others(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(report: Report, form: str, directory: Path) -> str:
        if form == "html":
            raise KeyError("x")
        return form

    (whole(folder).path / "report.html").write_text("of an earlier report")
    monkeypatch.setattr(writing, "render", broken)
    notes: list[str] = []
    writing.write(folder.path, notes.append)
    assert notes == ["report.html could not be made: KeyError: 'x'"]
    assert not (folder.path / "report.html").exists()
    assert (folder.path / "report.md").read_text() == "md"


def test_a_full_disk_is_told_and_fails_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    whole(folder)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    notes: list[str] = []
    assert writing.write(folder.path, notes.append).verdict.state == "good"
    assert len(notes) == len(writing.FILES) + 1
    assert all("No space left on device" in note for note in notes)


def test_hostile_texts_stay_texts(folder: Folder) -> None:
    evil = "</script><script>alert(1)</script>\x00\x1b[31m\u202e"
    check = samples.check(title=evil, outcome="failed", reason=evil).model_dump(mode="json")
    whole(folder).put(facts__checks_sealed_verify=[check], facts__identity={**IDENTITY, "operator": evil})
    (folder.path / "logs/evil.log").write_text(evil)
    notes: list[str] = []
    report = writing.write(folder.path, notes.append)
    assert notes == []
    assert report.run.operator == evil
    assert "<script>alert(1)" not in (folder.path / "report.html").read_text()
