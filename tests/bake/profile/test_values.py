"""Networks and names that no regular expression can judge: what is accepted, and the fix for what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from bake import profile
from bake.errors import UsageError
from bake.profile import values

from ..variables import VARIABLES
from . import broken_profiles

GOOD = "extends: good\n"


def load(tmp_path: Path, text: str, **variables: str) -> profile.Profile:
    (tmp_path / "good.yaml").write_bytes(broken_profiles.GOOD)
    (tmp_path / "p.yaml").write_text(GOOD + text)
    return profile.load("p", tmp_path, {**VARIABLES, **variables})


def message(tmp_path: Path, text: str, **variables: str) -> str:
    with pytest.raises(UsageError) as caught:
        load(tmp_path, text, **variables)
    return caught.value.message.replace(f"{tmp_path}/", "")


# --- regions ------------------------------------------------------------------------------------

REGIONS = [
    *("eu-north-1", "us-gov-west-1", "cn-northwest-1", "us-iso-east-1", "us-isob-east-1", "eu-isoe-west-1"),
    *("us-isof-south-1", "eusc-de-east-1", "mx-central-1", "ap-southeast-12"),
]


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_of_any_partition(tmp_path: Path, region: str) -> None:
    found = load(tmp_path, "", SPOT_AWS_REGION=region, AWS_REGION=region)
    assert (found.builder.region, found.worker.region) == (region, region)


@pytest.mark.parametrize(
    "region", ["north", "eu-north", "eu-north-1a", "europe-north-1", "EU-north-1", "eu--1"]
)
def test_what_is_no_region(tmp_path: Path, region: str) -> None:
    said = message(tmp_path, "", SPOT_AWS_REGION=region)
    assert f"builder.region: {region} does not look like a region (eu-north-1)" in said


# --- ssh_from -----------------------------------------------------------------------------------


def ssh_from(tmp_path: Path, network: str) -> str:
    text = "builder:\n  security_group: temporary\n  ssh_from: ${FROM}\n"
    return message(tmp_path, text, FROM=network).partition("builder.ssh_from: ")[2]


@pytest.mark.parametrize(
    "network",
    ["203.0.113.7", "203.0.113.7/32", "10.0.0.0/8", "2001:db8::7/128", "2001:db8::/32", "2001:DB8::7"],
)
def test_a_network_of_ones_own(tmp_path: Path, network: str) -> None:
    text = "builder:\n  security_group: temporary\n  ssh_from: ${FROM}\n"
    assert load(tmp_path, text, FROM=network).builder.ssh_from == network


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("0.0.0.0/0", "must not open port 22 to everybody"),
        ("::/0", "must not open port 22 to everybody"),
        ("0.0.0.0/1", "must be no wider than /8: /1 opens port 22 to 2,147,483,648 addresses"),
        ("10.0.0.0/7", "must be no wider than /8: /7 opens port 22 to 33,554,432 addresses"),
        ("2000::/3", "must be no wider than /32: /3 opens"),
        ("2001:db8::/31", "must be no wider than /32: /31 opens"),
        (
            "203.0.113.7/24",
            "is an address within a network: write 203.0.113.0/24 for all of it, or 203.0.113.7/32",
        ),
        (
            "2001:db8::7/64",
            "is an address within a network: write 2001:db8::/64 for all of it, or 2001:db8::7/128",
        ),
        ("fe80::1%eth0/128", "must be an IPv4 or IPv6 network such as"),
        ("203.0.113.7/33", "must be an IPv4 or IPv6 network such as"),
        ("my-office", "must be an IPv4 or IPv6 network such as"),
    ],
)
def test_a_network_that_is_refused(tmp_path: Path, network: str, expected: str) -> None:
    assert ssh_from(tmp_path, network).startswith(expected)


# --- instance profiles --------------------------------------------------------------------------

ARN = "arn:aws:iam::123456789012"


@pytest.mark.parametrize("name", ["flux", "flux-worker_1", "a+b=c,d.e@f"])
def test_an_instance_profiles_name(name: str) -> None:
    assert values.instance_profile(name) == name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f"{ARN}:instance-profile/flux", "not its ARN: write flux"),
        (f"{ARN}:instance-profile/team/gpu/flux", "not its ARN: write flux"),
        ("arn:aws-us-gov:iam::123456789012:instance-profile/flux", "not its ARN: write flux"),
        ("arn:aws-eusc:iam::123456789012:instance-profile/flux", "not its ARN: write flux"),
        (f"{ARN}:role/team/baker", "is the ARN of a role: write the name of an instance profile that has"),
        (f"{ARN}:user/ada", "is an ARN, and not an instance profile's"),
        ("arn:aws:s3:::pictures", "is an ARN, and not an instance profile's"),
        ("/team/flux", "without its path: write flux"),
        ("instance-profile/flux", "without its path: write flux"),
        ("flux worker", "it has ' '"),
        ("flüx:1", "it has ':' 'ü'"),
    ],
)
def test_what_is_no_instance_profiles_name(tmp_path: Path, given: str, expected: str) -> None:
    said = message(tmp_path, "", BAKE_INSTANCE_PROFILE=given)
    assert "builder.instance_profile: " in said
    assert expected in said


def test_an_arn_in_the_file_is_told_both(tmp_path: Path) -> None:
    """Else the account id in it would be all that is said, and the variable be refused next."""
    said = message(tmp_path, f"builder:\n  instance_profile: {ARN}:instance-profile/team/flux\n")
    assert "not its ARN: write flux; it must come from the environment, not from the file" in said
    assert "set BAKE_INSTANCE_PROFILE in the environment or in .env.local, to that name" in said


# --- the folder ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("g6e-ubunto", "g6e-ubuntu"),
        ("G6E-Ubuntu", "g6e-ubuntu"),
        ("g6e-ubuntu.yaml", "g6e-ubuntu"),
        ("profiles/g6e-ubuntu.yaml", "g6e-ubuntu"),
        ("inf2-ubuntu.lock", "inf2-ubuntu"),
    ],
)
def test_the_nearest_profile_is_named(name: str, meant: str) -> None:
    folder = Path(__file__).parents[3] / "profiles"
    with pytest.raises(UsageError) as caught:
        profile.load(name, folder, VARIABLES)
    assert f"no profile named {name!r} in {folder}; there are: g5-amazon-linux, " in caught.value.message
    assert caught.value.hint == f"did you mean --profile {meant}?"


def test_a_relative_folder_is_shown_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("profiles").mkdir()
    with pytest.raises(UsageError) as caught:
        profile.load("x", Path("profiles"), {})
    assert f"in {tmp_path / 'profiles'}: there are none" in caught.value.message
    assert "--profiles" in str(caught.value.hint)
    for folder, wrong in ((Path("none"), "does not exist"), (Path("file"), "is not a folder")):
        Path("file").touch()
        with pytest.raises(UsageError) as caught:
            profile.load("x", folder, {})
        assert caught.value.message == f"no profiles: {tmp_path / folder} {wrong}"
