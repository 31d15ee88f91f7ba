"""What a stranger could reach, change or find. Findings name places, never what lies there."""

from __future__ import annotations

import shlex
from pathlib import Path

from bake import layout
from bake.checks.declare import check
from bake.checks.evidence import Caused, Compare
from bake.checks.expectations import Expectations
from bake.checks.gathered import Answers, Facts

SSH = 22
DHCP_CLIENT = {68, 546}
HF_TOKEN_FILES = ("huggingface/token", "huggingface/stored_tokens", ".huggingface/token")
# What the bake creates besides the cache: folders with their content, and the unit with its drop-ins.
MADE = [layout.WORKER, str(Path(layout.WORKER_ENV).parent), layout.LIBRARY, str(Path(layout.NOTICE).parent)]
MADE += [layout.STATE, f"{layout.UNITS}/{Path(layout.SERVICE).stem}[.@]*"]

_METADATA = (
    "import urllib.request as u, urllib.error as e\n"
    "try: print(u.urlopen('http://169.254.169.254/latest/meta-data/', timeout=60).status)\n"
    "except e.URLError as error: print(getattr(error, 'code', error.reason))"
)
LEAK = "An image is copied, shared and snapshotted: whoever can launch it reads every file of it."
RENEW = "Revoke the secret now, since it was on a disk; then find out which script or base AMI wrote it."


@check(
    "critical",
    "Each open port is a program that strangers can talk to, on every instance of the image.",
    "Disable the service in the base AMI, or bind it to 127.0.0.1.",
    cis="Ubuntu 22.04 v2.0.0: 2.1.22",
    booted=True,
)
def test_only_ssh_listens(system: Facts, compare: Compare, caused: Caused) -> None:
    """Nothing but SSH can be reached from outside (R-OS)."""
    outside = {name: one for name, one in system["sockets"].items() if not _is_loopback(one[1])}
    found = {name: "" for name, one in outside.items() if not _is_expected(one[0], one[2])}
    compare.none(system, caused("listening", found), "SSH alone, and the DHCP client")


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")


def _is_expected(protocol: str, port: int) -> bool:
    return port == SSH if protocol.startswith("tcp") else port in DHCP_CLIENT


def _writable(expect: Expectations) -> dict[str, str]:
    places = " ".join([*MADE, shlex.quote(expect.cache_dir)])
    # Missing ones are another check's business, but some must exist. Links have no mode of their own.
    return {
        "there": f"find {places} -maxdepth 0 2>/dev/null || :",
        "writable": f"find {places} ! -type l -perm /022 -printf '%m %p\\n' 2>/dev/null || :",
    }


@check(
    "high",
    "Whoever can change a file that the worker runs or reads can run what they like in its place.",
    "Set umask 022 where the file is made: in a script of provision/, or in the worker's wheel.",
    cis="Ubuntu 22.04 v2.0.0: 7.1.11",
    asks=_writable,
)
def test_nothing_is_writable_for_others(answers: Answers, compare: Compare) -> None:
    """Of all that the bake made, nothing can be changed by a group or by everybody (R-SYSTEMD)."""
    there, writable = answers["there"], answers["writable"]
    compare.holds(there, bool(there.lines), "what the bake made", there.lines)
    compare.none(writable, writable.lines, "nothing of mode 022")


@check(
    "high",
    "A setuid program that nobody maintains is a way to become root.",
    "`chmod u-s` the file, or deliver it by a package that is updated.",
    cis="Ubuntu 22.04 v2.0.0: 7.1.13",
)
def test_no_new_rights(rights: Facts, compare: Compare, caused: Caused) -> None:
    """No program runs with another's rights but those of packages and of the base AMI (R-OS)."""
    compare.holds(rights, bool(rights["users"]), "a list of users", f"{len(rights['users'])} users")
    others = {path: one for path, one in rights["setuid"].items() if path not in rights["packaged"]}
    compare.none(rights, caused("setuid", others, rights["changed"]), "no setuid program of no package")


@check(
    "high",
    "IMDSv1 gives the role's credentials to any program that can be made to fetch a URL.",
    "Launch with HttpTokens=required; the image itself asks for it once it is published.",
    asks=lambda expect: {"status": f"{layout.SYSTEM_PYTHON} -c {shlex.quote(_METADATA)}"},
    booted=True,
)
def test_metadata_needs_a_token(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """The metadata service answers IMDSv2 alone (R-CONFIG)."""
    compare.equal(answers["status"], "401", answers["status"].said)


def _token_known(expect: Expectations) -> str | None:
    return None if expect.token else "nobody told which Hugging Face token the bake used"


@check("critical", LEAK, RENEW, applies=_token_known)
def test_token_not_on_disk(secrets: Facts, compare: Compare) -> None:
    """The Hugging Face token of this run is in no file of the machine (R-CONFIG)."""
    _searched(secrets, compare)
    compare.none(secrets, secrets["token_files"], "no file with the token")


@check("critical", LEAK, RENEW, applies=_token_known)
def test_token_not_in_processes(secrets: Facts, compare: Compare) -> None:
    """The token is in no process's arguments or environment (R-CONFIG)."""
    compare.none(secrets, secrets["token_processes"], "no process with the token")


@check("critical", LEAK, RENEW, applies=_token_known)
def test_token_not_in_journal(secrets: Facts, compare: Compare) -> None:
    """The token is not in the journal (R-CONFIG)."""
    compare.equal(secrets, "no token in the journal", _in_journal(secrets["token_in_journal"]))


def _searched(secrets: Facts, compare: Compare) -> None:
    """A search of nothing finds nothing."""
    compare.holds(secrets, secrets["searched"] > 0, "a search of all files", f"{secrets['searched']} files")


def _in_journal(found: bool) -> str:
    return "the token in the journal" if found else "no token in the journal"


@check("critical", LEAK, RENEW)
def test_no_other_hf_token(secrets: Facts, compare: Compare, caused: Caused) -> None:
    """No file holds anything that looks like a Hugging Face token (R-CONFIG)."""
    _searched(secrets, compare)
    found = caused("hf_tokens", secrets["hf_tokens"], secrets["changed"])
    compare.none(secrets, found, "no file with a word like hf_…")


def _stored(expect: Expectations) -> dict[str, str]:
    names = " -o ".join(f"-path '*/{name}'" for name in HF_TOKEN_FILES)
    return {"stored": f"find /root /home /opt \\( {names} \\) -print"}


@check("critical", LEAK, RENEW, asks=_stored)
def test_no_hf_token_file(answers: Answers, secrets: Facts, compare: Compare, caused: Caused) -> None:
    """huggingface_hub has stored no token (R-CONFIG)."""
    stored = answers["stored"]
    known = {path: secrets["hf_token_files"].get(path, "no file") for path in stored.lines}
    compare.holds(stored, stored.code == 0, "a search to the end", f"exit code {stored.code}")
    compare.none(stored, caused("hf_token_files", known, secrets["changed"]), "no stored token")


@check("critical", LEAK, RENEW)
def test_no_aws_keys(secrets: Facts, compare: Compare, caused: Caused) -> None:
    """No AWS access key is on the machine: the role speaks for the worker (R-CONFIG)."""
    _searched(secrets, compare)
    found = caused("aws_keys", secrets["aws_keys"], secrets["changed"])
    compare.none(secrets, found, "no file with a word like AKIA…")


@check("critical", LEAK, "Remove the key from the base AMI, and replace it wherever it opens something.")
def test_no_private_keys(secrets: Facts, compare: Compare, caused: Caused) -> None:
    """No private key is on the machine but its own host keys, which the seal destroys (R-CONFIG)."""
    _searched(secrets, compare)
    found = caused("private_keys", secrets["private_keys"], secrets["changed"])
    compare.none(secrets, found, "no private key")
