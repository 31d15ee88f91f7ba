"""The parts of steps that need no machine."""

from __future__ import annotations

import io
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import UndefinedError

from bake import wiring
from bake.errors import BakeError
from bake.instance import KeyPair, user_data
from bake.resources import WORKER
from bake.steps import prefetch, provision
from bake.steps.boot_check import png_size
from bake.steps.launch import ingress


def png(width: int, height: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_pngs_size_is_read_from_its_header() -> None:
    assert png_size(png(320, 256), "s3://b/k") == (320, 256)


@pytest.mark.parametrize("content", [b"", b"<Error>AccessDenied</Error>", png(8, 8)[:10]], ids=len)
def test_a_file_that_is_no_png_is_reported_with_its_place(content: bytes) -> None:
    with pytest.raises(BakeError, match=r"s3://b/k is not a PNG"):
        png_size(content, "s3://b/k")


@pytest.mark.parametrize(
    ("network", "ranges"),
    [
        ("203.0.113.7/32", {"IpRanges": [{"CidrIp": "203.0.113.7/32", "Description": "bake"}]}),
        ("203.0.113.7", {"IpRanges": [{"CidrIp": "203.0.113.7/32", "Description": "bake"}]}),
        ("10.0.0.0/255.0.0.0", {"IpRanges": [{"CidrIp": "10.0.0.0/8", "Description": "bake"}]}),
        ("2001:db8::/48", {"Ipv6Ranges": [{"CidrIpv6": "2001:db8::/48", "Description": "bake"}]}),
        ("2001:DB8:0::7", {"Ipv6Ranges": [{"CidrIpv6": "2001:db8::7/128", "Description": "bake"}]}),
    ],
)
def test_the_rule_of_a_temporary_group(network: str, ranges: dict[str, Any]) -> None:
    assert ingress(network) == {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **ranges}


def test_user_data_carries_the_host_key_and_the_files() -> None:
    key = KeyPair.generate()
    config = yaml.safe_load(user_data([key], {"/etc/x.env": "A=1\n"}))
    assert config["ssh_keys"]["ed25519_private"] == key.private
    assert config["ssh_deletekeys"] is True
    assert config["write_files"] == [{"path": "/etc/x.env", "content": "A=1\n", "permissions": "0644"}]


def test_user_data_that_ec2_would_refuse_is_refused_here() -> None:
    with pytest.raises(BakeError, match="EC2 takes 16,384"):
        user_data([KeyPair.generate()], {"/big": "x" * 16_384})


def test_key_pairs_are_real_openssh_keys(tmp_path: Path) -> None:
    key = KeyPair.generate()
    file = tmp_path / "key"
    file.write_text(key.private)
    file.chmod(0o600)
    derived = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(file)], capture_output=True, text=True, check=True
    )
    assert derived.stdout.split()[:2] == key.public.split()[:2]


def test_settings_read_the_same_by_a_shell() -> None:
    odd = {"A": "with space", "B": "it's", "C": "$HOME"}
    script = wiring.environment_text(odd) + 'printf "%s|%s|%s" "$A" "$B" "$C"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "with space|it's|$HOME"


def test_a_name_that_no_setting_has_is_an_error() -> None:
    assert provision.render("User={{ BAKE_USER }}\n", {"BAKE_USER": "ubuntu"}) == "User=ubuntu\n"
    with pytest.raises(UndefinedError):
        provision.render("User={{ BAKE_USR }}\n", {"BAKE_USER": "ubuntu"})


def test_the_wheel_is_built_without_a_trace_in_the_checkout(tmp_path: Path) -> None:
    before = sorted(path for path in WORKER.rglob("*") if "__pycache__" not in path.parts)
    wheel = provision.build_wheel(WORKER, tmp_path / "wheels")
    assert wheel.name.startswith("flux_worker-")
    assert "flux_worker/model.json" in zipfile.ZipFile(wheel).namelist()
    after = sorted(path for path in WORKER.rglob("*") if "__pycache__" not in path.parts)
    assert after == before


def test_events_are_read_as_they_come_and_a_half_line_waits_for_its_end() -> None:
    events = prefetch.Events()
    first, second = '{"event": "progress", "done": 1}\n', '{"event": "progress", "done": 5}\n'
    assert [event["done"] for event in events.take(first + second[:9])] == [1]
    assert [event["done"] for event in events.take(second[9:] + "Traceback (most recent call last):\n")] == [
        5
    ]
    assert events.last == {"progress": {"event": "progress", "done": 5}}
    assert events.read == len(first + second) + len("Traceback (most recent call last):\n")


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            {"event": "disk", "device": "/dev/nvme0n1p1", "model": "Amazon Elastic Block Store",
             "stand_in": False, "filesystem": "ext4", "free": 40e9, "needed": 33.7e9},
            "the cache is on /dev/nvme0n1p1 (Amazon Elastic Block Store, ext4): 40.0 GB free, 33.7 GB needed",
        ),
        (
            {"event": "disk", "device": "/dev/loop3", "model": None, "stand_in": True, "filesystem": "ext4",
             "free": 40e9, "needed": 1e6},
            "the cache is on /dev/loop3 (stands for EBS, ext4): 40.0 GB free, 1.0 MB needed",
        ),
        (
            {"event": "disk", "device": "scratch", "model": None, "stand_in": True, "scratch": True,
             "filesystem": "tmpfs", "free": 4e9, "needed": 1e6},
            "the download is on scratch (stands for an instance store, tmpfs): 4.0 GB free, 1.0 MB needed",
        ),
        (
            {"event": "retry", "file": "vae/a", "why": "HTTP 429", "attempt": 2, "wait": 30},
            "vae/a: HTTP 429; try 2 in 30 s",
        ),
        (
            {"event": "corrected", "file": "vae/a", "why": "its sha256 was wrong"},
            "vae/a: its sha256 was wrong; fetched again",
        ),
        (
            {"event": "leftovers", "bytes": 21e6, "files": [
                *({"path": f"repo/blobs/{name}", "bytes": 5e6, "removed": True} for name in "abcd"),
                {"path": "models--some--other", "bytes": 9e9, "removed": False},
            ]},
            "removed what an earlier try left, 21.0 MB: repo/blobs/a (5.0 MB), repo/blobs/b (5.0 MB), "
            "repo/blobs/c (5.0 MB) and 1 more; the cache also holds, and keeps, models--some--other (9.0 GB)",
        ),
        ({"event": "mirror", "why": "it does not answer"}, "mirror: it does not answer"),
        ({"event": "done"}, None),
    ],
    ids=lambda value: value["event"] if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_the_downloader_does_is_told_in_a_line(event: dict[str, Any], text: str | None) -> None:
    assert prefetch.said(event) == text
