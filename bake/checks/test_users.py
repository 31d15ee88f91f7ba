"""Who may log in, and what they may do."""

from __future__ import annotations

import shlex

from bake.checks.declare import check
from bake.checks.evidence import Caused, Compare
from bake.checks.expectations import Expectations
from bake.checks.gathered import Answers, Facts


@check(
    "high",
    "The unit, the cache and the documentation name the user that the operating system has on EC2.",
    "Choose the right `base.os`, or a base AMI with its usual user.",
    asks=lambda expect: {"user": f"getent passwd {shlex.quote(expect.user)}"},
    booted=True,
)
def test_user_and_home(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """The user exists and has the home the operating system gives it (R-OS)."""
    fields = answers["user"].out.strip().split(":")
    found = (fields[0], fields[5]) if len(fields) > 6 else None
    compare.equal(answers["user"], (expect.user, expect.home), found)


@check(
    "high",
    "Whoever may write to a home may add a key to it and log in as its user.",
    "`chmod 750` and `chown` the home in the base AMI.",
    cis="Ubuntu 22.04 v2.0.0: 7.2.9",
    asks=lambda expect: {"home": f"stat --format='%F %U %a' {shlex.quote(expect.home)}"},
)
def test_home_belongs_to_user(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """The home belongs to its user, and nobody else may write to it (R-OS)."""
    found = answers["home"].words
    right = len(found) == 3 and found[:2] == ["directory", expect.user] and not int(found[2], 8) & 0o022
    expected = f"a directory of {expect.user} that no other can write to"
    compare.holds(answers["home"], right, expected, answers["home"].said)


@check(
    "medium",
    "Operators and the bake itself become root this way; EC2's images all allow it.",
    "Restore the base AMI's file in /etc/sudoers.d, which cloud-init writes.",
    asks=lambda expect: {"sudo": f"runuser -u {shlex.quote(expect.user)} -- sudo -n id -u"},
)
def test_user_may_become_root(answers: Answers, compare: Compare) -> None:
    """The user becomes root without a password, as on every EC2 image (R-OS)."""
    compare.equal(answers["sudo"], "0", answers["sudo"].said)


@check(
    "critical",
    "A password can be guessed by everybody who reaches the machine, and all instances would share it.",
    "Lock the account in the base AMI: `passwd --lock NAME`.",
    cis="Ubuntu 22.04 v2.0.0: 7.2.2",
    booted=True,
)
def test_no_passwords(system: Facts, compare: Compare, caused: Caused) -> None:
    """No account has a password or is open without one: keys alone let people in (R-OS)."""
    found = caused("with_password", system["with_password"])
    compare.none(system, found, "no account that a password, or none, opens")
