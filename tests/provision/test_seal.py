"""The seal list and the program that reads it, on folders made for the test."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from bake.checks.case_list import SEAL

PROVISION = Path(__file__).parents[2] / "provision"
LIST: dict[str, Any] = yaml.safe_load((PROVISION / "seal.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def seal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("seal", PROVISION / "seal.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entry(path: Path | str, action: str, **more: Any) -> dict[str, Any]:
    return {"path": str(path), "action": action, "why": "a test", **more}


@pytest.fixture
def quiet(seal: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program without what it does to the machine it runs on: services, journal, discarding."""
    monkeypatch.setattr(seal, "silence", lambda units: [])
    monkeypatch.setattr(seal, "silence_audit", list)
    monkeypatch.setattr(seal, "discard", lambda mount: None)
    return seal


def sealed(seal: ModuleType, *entries: dict[str, Any], keep: tuple[Path, ...] = ()) -> list[str]:
    failures: list[str] = seal.delete({"stop": [], "entries": list(entries)}, list(keep))
    return failures


@pytest.mark.parametrize("item", LIST["entries"], ids=lambda item: item["path"])
def test_every_entry_is_whole(item: dict[str, Any]) -> None:
    assert item["action"] in ("remove", "empty", "truncate", "lines")
    assert item["path"].startswith(("/", "~/")) and item["path"] not in ("/", "~/")
    assert item["why"]
    assert set(item) <= {"path", "action", "why", "overwrite", "own", "case"}
    assert item["case"] in SEAL
    assert item["action"] == "remove" or "own" not in item


def test_what_others_must_never_find_is_listed() -> None:
    paths = {item["path"] for item in LIST["entries"]}
    assert {
        "~/.ssh/authorized_keys*",
        "/etc/ssh/ssh_host_*_key*",
        "/etc/machine-id",
        "/etc/hostname",
        "/etc/netplan/*",
        "/var/lib/cloud/instances/*",
        "~/.*_history",
        "/var/log/journal",
        "~/.cache/huggingface/token",
        "/opt/bake",
    } <= paths


def test_remove_takes_links_and_folders_but_not_what_links_lead_to(quiet: ModuleType, tmp_path: Path) -> None:
    kept, gone = tmp_path / "kept", tmp_path / "gone"
    (gone / "deep").mkdir(parents=True)
    kept.mkdir()
    (gone / "deep" / "file").write_text("x")
    (kept / "file").write_text("kept")
    (gone / "link").symlink_to(kept / "file")
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    entries = [entry(tmp_path / name, "remove", overwrite=True) for name in ("gone", "link", "dead")]
    assert sealed(quiet, *entries) == []
    assert list(tmp_path.iterdir()) == [kept]
    assert (kept / "file").read_text() == "kept"


def test_empty_keeps_the_folder(quiet: ModuleType, tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "file").write_text("x")
    assert sealed(quiet, entry(tmp_path, "empty")) == []
    assert list(tmp_path.iterdir()) == []


def test_truncate_keeps_files_and_follows_no_link_out_of_the_folder(
    quiet: ModuleType, tmp_path: Path
) -> None:
    logs, outside = tmp_path / "log", tmp_path / "outside"
    (logs / "app").mkdir(parents=True)
    outside.mkdir()
    (outside / "data").write_text("not a log")
    (logs / "app" / "a.log").write_text("secret")
    (logs / "app" / "a.log").chmod(0o640)
    (logs / "elsewhere").symlink_to(outside)
    (logs / "file").symlink_to(outside / "data")
    assert sealed(quiet, entry(f"{logs}/**", "truncate", overwrite=True)) == []
    assert (logs / "app" / "a.log").read_bytes() == b""
    assert (logs / "app" / "a.log").stat().st_mode & 0o777 == 0o640
    assert (outside / "data").read_text() == "not a log"


def test_overwriting_spares_the_other_name_of_a_hard_link(quiet: ModuleType, tmp_path: Path) -> None:
    """uv links packages from its cache into the worker's environment."""
    cache, installed = tmp_path / "cache", tmp_path / "installed"
    cache.write_text("code")
    os.link(cache, installed)
    assert sealed(quiet, entry(cache, "remove", overwrite=True)) == []
    assert installed.read_text() == "code"


def test_overwriting_leaves_nothing_in_the_old_blocks(quiet: ModuleType, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_bytes(b"s" * 3_000_000)
    with secret.open("rb") as still_open:
        assert sealed(quiet, entry(secret, "remove", overwrite=True)) == []
        assert still_open.read() == bytes(3_000_000)


@pytest.mark.parametrize("listed", ["hub", "hub/blob", "."], ids=["it", "inside it", "above it"])
def test_what_is_kept_cannot_be_removed(quiet: ModuleType, tmp_path: Path, listed: str) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    (hub / "blob").write_text("weights")
    failures = sealed(quiet, entry(tmp_path / listed, "remove"), keep=(hub,))
    assert len(failures) == 1 and "to be kept" in failures[0]
    assert (hub / "blob").read_text() == "weights"


@pytest.fixture
def named(quiet: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The program on an instance with names."""
    data = tmp_path / "instance-data.json"
    interface = {"local-ipv4s": "10.0.0.5\n10.0.0.6", "mac": "02:ab:cd:00:00:01"}
    metadata = {
        "hostname": "ip-10-0-0-5.eu-north-1.compute.internal",
        "instance-id": "i-0123456789abcdef0",
        "placement": {"region": "eu-north-1"},
        "network": {"interfaces": {"macs": {"02:ab:cd:00:00:01": interface}}},
    }
    data.write_text(json.dumps({"v1": {"region": "eu-north-1"}, "ds": {"meta_data": metadata}}))
    monkeypatch.setattr(quiet, "INSTANCE_DATA", [tmp_path / "sensitive.json", data])
    quiet.own_names.cache_clear()
    return quiet


def test_lines_that_name_this_instance_go_and_the_others_stay(named: ModuleType, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    kept = ["127.0.0.1 localhost", "10.0.0.50 registry ip-10-0-0-55", "210.0.0.5 far"]
    own = ["127.0.1.1 ip-10-0-0-5", "10.0.0.6 me", "# for I-0123456789ABCDEF0"]
    hosts.write_text("\n".join([kept[0], own[0], kept[1], *own[1:], kept[2], ""]))
    hosts.chmod(0o640)
    lines = entry(hosts, "lines")
    assert list(named.leftovers(lines)) == [hosts]
    assert sealed(named, lines) == []
    assert hosts.read_text().splitlines() == kept
    assert hosts.stat().st_mode & 0o777 == 0o640
    assert list(named.leftovers(lines)) == []


def test_a_name_of_the_owners_stays(named: ModuleType, tmp_path: Path) -> None:
    for name in ("gpu-worker-base", "ip-10-0-0-55", "localhost"):
        (tmp_path / "hostname").write_text(f"{name}\n")
        assert sealed(named, entry(tmp_path / "hostname", "lines")) == []
        assert (tmp_path / "hostname").read_text() == f"{name}\n"


def test_only_what_was_written_for_this_instance_goes(named: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "netplan"
    (folder / "folder").mkdir(parents=True)
    (folder / "50-cloud-init.yaml").write_text("match: {macaddress: '02:AB:CD:00:00:01'}\n")
    (folder / "10-owners.yaml").write_text("match: {driver: ena}\n")
    (folder / "link.yaml").symlink_to(folder / "50-cloud-init.yaml")
    assert sealed(named, entry(f"{folder}/*", "remove", own=True)) == []
    assert {path.name for path in folder.iterdir()} == {"folder", "10-owners.yaml", "link.yaml"}


@pytest.mark.parametrize("content", [None, "{}"], ids=["no file", "no names"])
def test_a_machine_that_does_not_know_its_names_is_no_sealed_one(
    named: ModuleType, tmp_path: Path, content: str | None
) -> None:
    named.INSTANCE_DATA[-1].unlink()
    if content is not None:
        named.INSTANCE_DATA[-1].write_text(content)
    (tmp_path / "hostname").write_text("x")
    with pytest.raises(SystemExit, match="own names"):
        sealed(named, entry(tmp_path / "hostname", "lines"))


def test_homes_of_all_users_are_searched(seal: ModuleType) -> None:
    assert "/root/.ssh/authorized_keys" in seal.patterns("~/.ssh/authorized_keys")


def test_check_names_what_is_left(tmp_path: Path) -> None:
    """The program as it runs on the machine, with its list beside it."""
    list_file = tmp_path / "seal.json"
    (tmp_path / "token").write_text("x")
    entries = [entry(tmp_path / "token", "remove"), entry(tmp_path / "absent", "remove")]
    list_file.write_text(json.dumps({"stop": [], "keep": [], "entries": entries}))
    command = [sys.executable, str(PROVISION / "seal.py"), "check", "--list", str(list_file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == f"{tmp_path / 'token'}  (a test)\n"
    (tmp_path / "token").unlink()
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_what_was_written_meanwhile_is_removed_again_and_told(
    quiet: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that can't be stopped writes one line after the first round; one that goes on is named."""
    log, rounds = tmp_path / "app.log", 1

    def write(mount: Path) -> None:  # where the first round ends
        nonlocal rounds
        rounds -= 1
        if rounds >= 0:
            writer.write("a line\n")

    monkeypatch.setattr(quiet, "discard", write)
    given = {"stop": [], "entries": [entry(log, "truncate")]}
    with log.open("a", buffering=1) as writer:
        assert quiet.both(given, []) == 0
        said = json.loads(capsys.readouterr().out)
        assert said["left"] == [] and f"process {os.getpid()} (" in said["notes"][0]
        rounds = 99
        assert quiet.both(given, []) == 1
        assert f"process {os.getpid()} (" in json.loads(capsys.readouterr().out)["left"][0]


def test_the_keys_go_last() -> None:
    paths = [item["path"] for item in LIST["entries"]]
    assert all("/ssh" in path or "/.ssh" in path for path in paths[-4:])


HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
SIX = "0000000000000000FFFF0000"


@pytest.mark.parametrize(
    ("row", "here"),
    [
        ("0: 0100007F:0016 0100007F:D431 01 00000000:00000000", True),
        ("0: 0B01D60A:0016 0101D60A:D431 01 00000000:00000000", False),
        ("0: 0100007F:0016 0100007F:D431 06 00000000:00000000", False),
        ("0: 0100007F:D431 0100007F:0016 01 00000000:00000000", False),
        ("0: 00000000:0016 00000000:0000 0A 00000000:00000000", False),
        (f"0: {SIX}0100007F:0016 {SIX}0100007F:D431 01 00000000:00000000", True),
        (f"0: {SIX}0B01D60A:0016 {SIX}0101D60A:D431 01 00000000:00000000", False),
        (f"0: {'0' * 24}01000000:0016 {'0' * 24}01000000:D431 01 00000000:00000000", True),
    ],
    ids=["agent", "network", "ended", "the-agents-end", "listening", "mapped", "mapped-network", "ipv6"],
)
def test_a_connection_from_the_machine_itself_is_known(
    seal: ModuleType, tmp_path: Path, row: str, here: bool
) -> None:
    table = tmp_path / "tcp"
    table.write_text(f"{HEAD}   {row}\n")
    assert seal.reached_from_here((str(tmp_path / "absent"), str(table))) is here


@pytest.mark.parametrize("here", [False, True])
def test_the_agent_that_the_bake_comes_through_goes_on(
    quiet: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: bool
) -> None:
    stopped: list[str] = []
    monkeypatch.setattr(quiet, "silence", lambda units: stopped.extend(units) or [])
    monkeypatch.setattr(quiet, "reached_from_here", lambda: here)
    quiet.delete({**LIST, "entries": []}, [])
    agents = {"amazon-ssm-agent.service", "snap.amazon-ssm-agent.amazon-ssm-agent.service"}
    assert agents & set(stopped) == (set() if here else agents)
    assert "cron.service" in stopped


def test_an_empty_list_stops_nothing(
    seal: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real program, with a stand-in for systemctl that lists a unit and keeps what it was told."""
    for name in ("systemctl", "journalctl"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "$0 $*" >>{tmp_path}/said\necho any.service\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert seal.silence([]) == []
    assert "systemctl stop" not in (tmp_path / "said").read_text()


def test_volumes_without_discard_are_reported(
    seal: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """fstrim that fails, as on a volume that cannot discard: a real command, found first on the PATH."""
    for name, body in (
        ("findmnt", "echo ext4"),
        ("fstrim", "echo 'fstrim: /: the discard operation is not supported' >&2; exit 1"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    seal.discard(Path("/"))
    assert (
        "could not be discarded (fstrim: /: the discard operation is not supported)"
        in capsys.readouterr().out
    )
