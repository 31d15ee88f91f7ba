"""The keys of a cloud: random, hidden, renewed, and gone with their instance."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from bake import redaction
from bake.errors import UsageError
from bake.localcloud.api.access import keys as access_keys
from bake.localcloud.api.access.keys import Keys

from .conftest import Clock

A, B = "i-0aaaaaaaaaaaaaaaa", "i-0bbbbbbbbbbbbbbbb"


def test_each_cloud_has_another_owner() -> None:
    one, other = Keys().owner, Keys().owner
    assert one.id != other.id and one.secret != other.secret
    assert (one.id[:4], len(one.id), len(one.secret)) == ("AKIA", 20, 40)


def test_a_session_is_kept_until_little_of_it_is_left() -> None:
    clock = Clock()
    keys = Keys(clock=clock)
    first = keys.of_role(A, "role")
    assert (first.id[:4], len(first.id)) == ("ASIA", 20)
    assert first.expires is not None and first.expires - clock() > timedelta(hours=5, minutes=59)
    clock.moved = timedelta(hours=5, minutes=44)
    assert keys.of_role(A, "role") is first
    clock.moved = timedelta(hours=5, minutes=46)
    second = keys.of_role(A, "role")
    assert second.id != first.id and second.token != first.token
    assert keys.of_role(A, "role") is second
    assert keys.find(first.id) is first and not first.expired(clock())  # both are good for a while
    clock.moved = timedelta(hours=6, minutes=1)
    assert first.expired(clock()) and not second.expired(clock())


def test_each_instance_and_role_has_its_own() -> None:
    keys = Keys()
    found = {keys.of_role(*asked).id for asked in ((A, "one"), (A, "two"), (B, "one"), (A, "one"))}
    assert len(found) == 3


def test_a_session_is_told_expired_for_a_day_and_then_unknown() -> None:
    clock = Clock()
    keys = Keys(clock=clock)
    first = keys.of_role(A, "role")
    clock.moved = timedelta(hours=29)
    keys.of_role(B, "role")
    assert keys.find(first.id) is first
    clock.moved = timedelta(hours=31)
    keys.of_role(B, "role")
    assert keys.find(first.id) is None


def test_sessions_end_with_their_instance() -> None:
    living = {A, B}
    keys = Keys(lives=living.__contains__)
    gone, other = keys.of_role(A, "role"), keys.of_role(B, "role")
    living.remove(A)
    assert keys.find(gone.id) is None and keys.find(other.id) is other
    assert keys.find(keys.owner.id) is keys.owner and keys.find("AKIA") is None and keys.find("") is None


def test_no_secret_shows() -> None:
    keys = Keys()
    session = keys.of_role(A, "role")
    shown = repr(keys.owner) + repr(session) + repr(keys)
    for secret in (keys.owner.secret, session.secret, session.token):
        assert secret not in shown
        assert secret not in redaction.redact(f"x {secret} y")


def test_the_owners_file_is_the_owners(tmp_path: Path) -> None:
    keys = Keys()
    (tmp_path / "credentials.json.partial").write_text("of a crash")
    access_keys.write(tmp_path, keys.owner)
    [file] = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text()) == {
        "AccessKeyId": keys.owner.id,
        "SecretAccessKey": keys.owner.secret,
    }
    found = access_keys.read(tmp_path)
    assert (found.id, found.secret) == (keys.owner.id, keys.owner.secret)
    assert found.secret not in repr(found)
    access_keys.write(tmp_path, Keys().owner)  # a cloud that starts anew
    assert access_keys.read(tmp_path).id != keys.owner.id
    access_keys.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "credentials.json.partial").symlink_to(tmp_path / "elsewhere")
    access_keys.write(tmp_path, Keys().owner)
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "credentials.json").is_symlink()


def test_without_a_file_the_user_learns_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is going down") as error:
        access_keys.read(tmp_path)
    assert error.value.hint == "take it down: bake local down"
