"""How two inventories differ, and which of the differences a bake means to make."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from bake import layout
from bake.checks.inventory import Inventory, Package
from bake.report import meant
from bake.report.changes import FIELDS, NOT_COMPARED, changes
from bake.report.meant import Intended, asked, intended, locked, on_machine
from bake.report.model import Change
from bake.resources import LOCKS, PROVISION
from tests.report.samples import BASE

CUDA = {"BAKE_ACCELERATOR": "cuda", "NVIDIA_DRIVER": "", "NEURON_PACKAGES": ""}
PINNED = {**CUDA, "NVIDIA_DRIVER": "580.95.05"}
NEURON = {"BAKE_ACCELERATOR": "neuron", "NVIDIA_DRIVER": "", "NEURON_PACKAGES": "aws-neuronx-dkms=2.25"}
LOCK = "torch==2.13.0 ; sys_platform == 'linux' \\\n    --hash=sha256:00\nHuggingface_Hub==1.4\n"


def deb(name: str, version: str = "1", arch: str = "amd64") -> Package:
    return Package(kind="deb", name=name, version=version, arch=arch)


def python(name: str, version: str, where: str = layout.VENV) -> Package:
    return Package(kind="python", name=name, version=version, where=where)


def machine(**fields: Any) -> Inventory:
    return Inventory.model_validate({"moment": "base", "kernel": "6.8", "os": "Ubuntu", **fields})


def judged(before: Inventory, after: Inventory, settings: dict[str, str] = CUDA, **more: Any) -> list[Change]:
    wanted = intended(settings, {layout.VENV: LOCK}, more.pop("removed", ()))
    return list(on_machine(before, after, dataclasses.replace(wanted, **more)).changes)


def verdicts(found: list[Change]) -> dict[str, bool]:
    return {change.name: change.meant for change in found}


# What differs


def test_nothing_differs_from_itself() -> None:
    assert changes(BASE, BASE) == ()


@pytest.mark.parametrize(
    ("field", "before", "after", "expected"),
    [
        ("users", {"a": "1"}, {"b": "2"}, [("user", "a", "1", None), ("user", "b", None, "2")]),
        ("groups", {"a": "1"}, {"a": "1 x"}, [("group", "a", "1", "1 x")]),
        ("units", {}, {"x.service": "enabled"}, [("unit", "x.service", None, "enabled")]),
        ("ports", {}, {"tcp 0.0.0.0:80": "web"}, [("port", "tcp 0.0.0.0:80", None, "web")]),
        ("setuid", {"/a": "4755 root root"}, {}, [("setuid", "/a", "4755 root root", None)]),
        ("sysctl", {"a": "0"}, {"a": "1"}, [("sysctl", "a", "0", "1")]),
        ("repositories", {}, {"/etc/x": "00"}, [("repository", "/etc/x", None, "00")]),
        ("versions", {"torch": "1"}, {"torch": "2"}, [("version", "torch", "1", "2")]),
        ("held", (), ("git",), [("hold", "git", None, "held")]),
        ("kernel_parameters", "", "ro", [("kernel parameters", "kernel parameters", None, "ro")]),
        ("os", "U 1", "U 2", [("os", "os", "U 1", "U 2")]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_field_is_compared(field: str, before: Any, after: Any, expected: list[tuple[str, ...]]) -> None:
    found = changes(machine(**{field: before}), machine(**{field: after}))
    assert [(one.kind, one.name, one.before, one.after) for one in found] == expected


def test_every_field_that_identifies_a_machine_is_compared() -> None:
    apart = {"moment", "incomplete", "dependencies", "owners"}  # which explain the others
    apart |= {"kernel", "held", "sources"}  # in versions; with the packages; in repositories
    assert set(FIELDS.values()) == set(Inventory.model_fields) - apart


def test_packages_are_told_apart_by_kind_architecture_and_place() -> None:
    before = machine(packages=(deb("libc6"), python("torch", "1"), python("apt", "1", "/usr/lib/python3")))
    after = machine(packages=(deb("libc6"), deb("libc6", "1", "i386"), python("torch", "2")))
    assert [(one.name, one.before, one.after) for one in changes(before, after)] == [
        ("deb libc6", "1", "1 (amd64), 1 (i386)"),
        ("python apt in /usr/lib/python3", "1", None),
        ("python torch", "1", "2"),
    ]


def test_several_kernels_of_one_name_are_one_line() -> None:
    kernels = [
        Package(kind="rpm", name="kernel", version=version, arch="x86_64") for version in ("6.2", "6.1")
    ]
    found = changes(machine(packages=kernels[1:]), machine(packages=kernels))
    assert [(one.before, one.after) for one in found] == [("6.1", "6.1, 6.2")]


def test_what_was_not_recorded_is_a_finding_and_not_empty() -> None:
    before = machine(users={"a": "1"}, incomplete=("packages",))
    found = changes(before, machine(users={}, incomplete=("users", "packages")))
    assert [(one.kind, one.name, one.before, one.after, one.meant) for one in found] == [
        ("package", NOT_COMPARED, "not recorded", "not recorded", False),
        ("user", NOT_COMPARED, "recorded", "not recorded", False),
    ]


# What a bake means to do


def test_the_packages_that_scripts_ask_for_are_read_from_them() -> None:
    assert asked(CUDA) == ("ca-certificates", "git", "util-linux")
    driver = {"gnupg", "kernel-devel-*", "linux-headers-*", "nvidia-driver-pinning-*", "nvidia-open"}
    assert set(asked(PINNED)) - set(asked(CUDA)) == driver
    neuron = {name for name in asked(NEURON) if name.startswith("aws-neuronx-")}
    assert len(neuron) == 4


def test_no_script_installs_what_is_not_read() -> None:
    """Each line that installs something yields a name, so that none is overlooked for how it is written."""
    for file in (PROVISION / "scripts").glob("*.sh"):
        text = file.read_text()
        installs = [
            line for line in text.splitlines() if "packages_install " in line or "from_nvidia /" in line
        ]
        assert bool(installs) <= bool(meant._installs(text)), file


def test_locks_are_read_with_one_spelling() -> None:
    assert locked(LOCK) == {"torch": "2.13.0", "huggingface-hub": "1.4"}
    assert len(locked((LOCKS / "worker.txt").read_text())) > 50


def test_new_packages_are_meant_with_what_they_need() -> None:
    after = machine(
        packages=(deb("git"), deb("perl"), deb("netcat"), deb("python3-x"), python("x", "1", "/usr/lib/p")),
        dependencies={"perl": "git", "python3-x": "git"},
    )
    found = judged(machine(), after)
    assert verdicts(found) == {
        "deb git": True, "deb perl": True, "deb netcat": False, "deb python3-x": True,
        "python x in /usr/lib/p": True,
    }  # fmt: skip
    assert [one.why for one in found if one.name == "deb perl"] == ["git needs it"]
    assert [one.why for one in found if not one.meant] == ["nothing in the bake asks for it"]


def rpm(name: str, version: str) -> Package:
    return Package(kind="rpm", name=name, version=version, arch="")


@pytest.mark.parametrize(
    ("before", "after", "settings", "meant"),
    [
        (["b"], ["b", "a"], CUDA, True),
        (["b"], ["a"], CUDA, False),
        (["b"], ["b", "a"], PINNED, False),
    ],
    ids=["one more", "another", "a vendor's, too"],
)
def test_rpm_trusts_the_keys_of_the_bases_repositories_from_the_first_install_on(
    before: list[str], after: list[str], settings: dict[str, str], meant: bool
) -> None:
    old = machine(packages=[rpm("gpg-pubkey", one) for one in before], repositories={"/etc/x.repo": "00"})
    keys = [rpm("gpg-pubkey", one) for one in after]
    new = machine(packages=[*keys, rpm("git", "1")], repositories={"/etc/x.repo": "00"})
    assert verdicts(judged(old, new, settings))["rpm gpg-pubkey"] == meant
    assert not verdicts(judged(old, machine(packages=keys), CUDA))["rpm gpg-pubkey"]
    another = new.model_copy(update={"repositories": {"/etc/x.repo": "11"}})
    assert not verdicts(judged(old, another, CUDA))["rpm gpg-pubkey"]


def test_an_upgrade_is_a_finding_even_of_what_a_script_asks_for() -> None:
    before = machine(packages=(deb("git", "1"), deb("libc6", "1")))
    after = machine(packages=(deb("git", "2"), deb("libc6", "2")), dependencies={"libc6": "git"})
    assert verdicts(judged(before, after)) == {"deb git": False, "deb libc6": False}


def test_the_pinned_driver_may_replace_the_bases_own() -> None:
    names = ("nvidia-open", "libnvidia-cfg1", "libc6")
    before = machine(packages=[deb(name, "570.1-1") for name in names], versions={"driver": "570.1"})
    after = machine(
        packages=[
            deb("nvidia-open", "580.95.05-1"),
            deb("libnvidia-cfg1", "1:580.95.05-1"),
            deb("libc6", "2"),
        ],
        dependencies={"libnvidia-cfg1": "nvidia-open", "libc6": "nvidia-open"},
        versions={"driver": "580.95.05"},
    )
    expected = {"deb nvidia-open": True, "deb libnvidia-cfg1": True, "deb libc6": False, "driver": True}
    assert verdicts(judged(before, after, PINNED)) == expected
    assert not any(verdicts(judged(before, after)).values())


def test_packages_that_go_are_meant_where_base_remove_took_them() -> None:
    before = machine(
        packages=(deb("cuda-12"), deb("vim")),
        units={"cuda.service": "enabled"},
        owners={"cuda.service": "cuda-12"},
    )
    found = verdicts(judged(before, machine(), removed=["cuda-12"]))
    assert found == {"deb cuda-12": True, "deb vim": False, "cuda.service": True}


def test_python_packages_are_held_against_their_lock() -> None:
    other = "/opt/conda"
    after = machine(
        packages=(
            python("torch", "2.13.0"), python("huggingface_hub", "1.5"), python("evil", "1"),
            python("flux_worker", "0.1"), python("torch", "2.13.0", other),
            Package(kind="program", name="cpython", version="3.11.9", where=f"{layout.WORKER}/python/3.11"),
            Package(kind="program", name="snap", version="3", where="/snap/snap"),
        )
    )  # fmt: skip
    assert verdicts(judged(machine(), after)) == {
        "python torch": True, "python huggingface-hub": False, "python evil": False,
        "python flux-worker": True, f"python torch in {other}": False,
        "program cpython": True, "program snap": False,
    }  # fmt: skip


def test_units_of_the_worker_and_of_new_packages_are_meant() -> None:
    after = machine(
        units={"flux-worker.service": "enabled", "flux-worker.path": "enabled", "x.service": "enabled",
               "git.socket": "static", "nvidia-persistenced.service": "enabled", "y.timer": "masked"},
        owners={"git.socket": "git", "x.service": "unknown"}, packages=(deb("git"),),
    )  # fmt: skip
    found = verdicts(judged(machine(units={"y.timer": "enabled"}), after))
    assert {name for name, fine in found.items() if not fine} == {"x.service", "y.timer"}
    found = verdicts(judged(machine(), after, NEURON))
    assert not found["nvidia-persistenced.service"]


def test_what_came_with_an_old_package_is_a_finding() -> None:
    before = machine(packages=(deb("sudo"),))
    after = machine(
        packages=(deb("sudo"), deb("git")),
        setuid={"/usr/bin/sudo": "4755 root root", "/usr/bin/git-x": "4755 root"},
        owners={"/usr/bin/sudo": "sudo", "/usr/bin/git-x": "git"}, users={"git": "9", "eve": "0"},
    )  # fmt: skip
    assert verdicts(judged(before, after)) == {
        "deb git": True, "/usr/bin/sudo": False, "/usr/bin/git-x": True, "git": True, "eve": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ports", {"tcp 0.0.0.0:80": "x"}),
        ("sysctl", {"kernel.sysrq": "1"}),
        ("repositories", {"/etc/apt/sources.list.d/x.list": "00"}),
        ("kernel_parameters", "init=/bin/sh"),
        ("os", "another"),
        ("versions", {"kernel": "6.9"}),
        ("groups", {"sudo": "27 eve"}),
        ("held", ("openssl",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_bake_means_to_change(field: str, value: Any) -> None:
    found = judged(machine(), machine(**{field: value}))
    assert [one.meant for one in found] == [False]


def test_kernel_and_driver_are_held_on_purpose() -> None:
    found = judged(machine(), machine(held=("linux-aws", "kernel-core", "nvidia-open")), PINNED)
    assert [one.meant for one in found] == [True] * 3


def test_versions_follow_what_they_are_of() -> None:
    after = machine(versions={"torch": "2.13.0", "python": "3.11.9", "aws-neuronx-dkms": "2.25"})
    found = judged(machine(), after.model_copy(update={"packages": (deb("aws-neuronx-dkms"),)}), NEURON)
    assert all(verdicts(found).values())
    assert not verdicts(judged(after, machine(), NEURON))["torch"]


def test_an_intention_can_be_made_by_hand() -> None:
    nothing = Intended(asked=(), held=(), units={}, locks={})
    found = on_machine(machine(), machine(packages=(deb("git"),)), nothing)
    assert (found.before, found.after, [one.meant for one in found.changes]) == ("base", "base", [False])


# Security updates


def updated(after: list[Package], **more: Any) -> dict[str, bool]:
    """What becomes of a base with openssl 1 where the bake recorded that it installed 2."""
    before = machine(packages=[deb("openssl"), deb("python3.10-minimal"), deb("vim")])
    told = machine(packages=[deb("python3.10-minimal"), deb("vim"), *after], **more)
    versions = {"openssl": ("2",), "libssl4": ("1",), "python3.10-minimal": ("2",)}
    return verdicts(judged(before, told, updated=versions))


def test_a_recorded_update_is_meant_and_so_is_what_it_brings() -> None:
    new = [deb("openssl", "2"), deb("libssl4")]
    more = {"units": {"openssl.timer": "enabled"}, "owners": {"openssl.timer": "openssl"}}
    assert updated(new, **more) == {"deb libssl4": True, "deb openssl": True, "openssl.timer": True}


def test_an_update_that_was_not_recorded_is_a_finding() -> None:
    assert updated([deb("openssl", "3")]) == {"deb openssl": False}
    assert updated([deb("openssl"), deb("libssl4", "7")]) == {"deb libssl4": False}
    assert updated([]) == {"deb openssl": False}


def test_the_systems_python_changes_with_its_package() -> None:
    before = machine(packages=[deb("python3.10-minimal")], versions={"system python": "3.10.1"})
    after = machine(packages=[deb("python3.10-minimal", "2")], versions={"system python": "3.10.2"})
    versions = {"python3.10-minimal": ("2",)}
    assert all(verdicts(judged(before, after, updated=versions)).values())
    assert not any(verdicts(judged(before, after)).values())
