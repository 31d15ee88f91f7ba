"""Where a machine's memory is limited: files as the kernel has them, for no host has all kinds of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake.localcloud.machines import cgroups
from bake.localcloud.settings import Settings

MEMORY = 2 << 30
TREE = Path("bake-0ad60000")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load({"BAKE_CACHE": str(tmp_path / "cache"), "BAKE_LOCAL_NETWORK": "10.214.0.0/24"})


def mounted(patch: pytest.MonkeyPatch, tmp_path: Path, *kinds: tuple[str, str]) -> list[Path]:
    """Hierarchies of these types and options, as /proc/self/mountinfo tells of them."""
    places = [tmp_path / str(number) for number in range(len(kinds))]
    lines = []
    for place, (kind, options) in zip(places, kinds, strict=True):
        (place / TREE / "i-1").mkdir(parents=True)
        lines.append(f"31 23 0:28 / {place} rw,relatime - {kind} {kind} {options}\n")
    file = tmp_path / "mountinfo"
    file.write_text("".join(lines))
    patch.setattr(cgroups, "_MOUNTS", file)
    return places


def refuses_memory(root: Path) -> None:
    """The kernel answers with an error where it has no such controller to hand down."""
    (root / "cgroup.subtree_control").mkdir()


@pytest.mark.parametrize("counts_swap", [True, False], ids=["swap", "no-swap"])
def test_version_2_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings, counts_swap: bool
) -> None:
    [root] = mounted(monkeypatch, tmp_path, ("cgroup2", "rw,nsdelegate"))
    machine = root / TREE / "i-1"
    if counts_swap:
        (machine / "memory.swap.max").touch()
    assert cgroups.Cgroups(settings, "i-1").make(MEMORY) == [machine / "cgroup.procs"]
    assert (machine / "memory.max").read_text() == str(MEMORY)
    assert (machine / "memory.swap.max").exists() == counts_swap
    assert not counts_swap or (machine / "memory.swap.max").read_text() == "0"
    for group in (root, root / TREE):
        assert (group / "cgroup.subtree_control").read_text() == "+memory"
    assert cgroups.limits_memory()


@pytest.mark.parametrize("counts_swap", [True, False], ids=["swap", "no-swap"])
def test_memory_counted_by_version_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings, counts_swap: bool
) -> None:
    unified, memory = mounted(monkeypatch, tmp_path, ("cgroup2", "rw"), ("cgroup", "rw,memory"))
    refuses_memory(unified)
    swap = memory / TREE / "i-1" / "memory.memsw.limit_in_bytes"
    if counts_swap:
        swap.touch()
    made = cgroups.Cgroups(settings, "i-1").make(MEMORY)
    assert made == [place / TREE / "i-1" / "cgroup.procs" for place in (unified, memory)]
    assert (swap.parent / "memory.limit_in_bytes").read_text() == str(MEMORY)
    assert swap.exists() == counts_swap
    assert not counts_swap or swap.read_text() == str(MEMORY)


def test_where_nothing_counts_memory_a_machine_runs_without_a_limit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: Settings
) -> None:
    [root] = mounted(monkeypatch, tmp_path, ("cgroup2", "rw"))
    refuses_memory(root)
    assert cgroups.Cgroups(settings, "i-1").make(MEMORY) == [root / TREE / "i-1" / "cgroup.procs"]
    assert not cgroups.limits_memory()
