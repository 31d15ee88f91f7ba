"""What a start from a fresh volume needs to be quick."""

from __future__ import annotations

import re

from bake import layout
from bake.checks.declare import check
from bake.checks.evidence import Compare, not_applicable
from bake.checks.expectations import Expectations
from bake.checks.gathered import Answers, Facts

READ_AHEAD_RULE = "/etc/udev/rules.d/60-bake-read-ahead.rules"
READ_AHEAD_KIB = 2560
DISKS = ('KERNEL=="nvme*n*", ATTRS{model}=="Amazon Elastic Block Store*"', 'KERNEL=="xvd*"')
# One rule of udev(7): terms such as ATTR{queue/read_ahead_kb}="2560", with commas between them.
_TERM = r'[A-Z]+(\{[^}]+\})?(==|=)"[^"]*"'
_RULE = re.compile(rf"{_TERM}(, *{_TERM})*")
# The read-ahead of the whole disk, which its partitions share; nothing where the root is no EBS disk.
ROOT_DISK = """
number=$(findmnt --noheadings --output MAJ:MIN --target / | tr -d ' ')
disk=$(readlink -f "/sys/dev/block/$number")
[ -e "$disk/partition" ] && disk=$(dirname "$disk")
case $(basename "$disk"):$(cat "$disk/device/model" 2>/dev/null) in
  xvd*:* | nvme*:"Amazon Elastic Block Store"*) cat "$disk/queue/read_ahead_kb" ;;
esac
"""
COLD = (
    "A fresh volume is read from S3 in small pieces: without read-ahead the weights take four times as long."
)
RULE = "The files of provision/rootfs bring the rule: find what removed or changed it."
# systemd 254 and newer check a rule.
_VERIFY = (
    f"udevadm --help | grep -q verify || {{ echo no verify; exit; }}; udevadm verify {READ_AHEAD_RULE} 2>&1"
)


@check("medium", COLD, RULE, asks=lambda expect: {"rule": f"cat {READ_AHEAD_RULE}", "verified": _VERIFY})
def test_read_ahead_rule(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """EBS disks are read ahead of far enough that a start from a fresh volume is not slow (R-SPOT)."""
    rules = [line for line in answers["rule"].lines if line.strip() and not line.startswith("#")]
    wrong = [rule for rule in rules if not _RULE.fullmatch(rule)]
    compare.none(answers["rule"], wrong, "no line that is no rule")
    for disk in DISKS:
        found = [rule for rule in rules if disk in rule]
        right = any(f'read_ahead_kb}}="{READ_AHEAD_KIB}"' in rule for rule in found)
        compare.holds(answers["rule"], right, f"{READ_AHEAD_KIB} KiB for {disk}", found)
    compare.equal(answers["verified"], 0, answers["verified"].code)


@check(
    "medium",
    COLD,
    RULE,
    asks=lambda expect: {
        "udev": "[ -e /run/udev/control ] && echo runs || echo 'does not run'",
        "kib": ROOT_DISK,
    },
    booted=True,
)
def test_read_ahead_of_the_root_disk(answers: Answers, compare: Compare) -> None:
    """The root disk is read ahead of as the rule says (R-SPOT)."""
    if answers["udev"].out.strip() != "runs":
        not_applicable("udev does not run on this machine, a container")
    if not (found := answers["kib"].out.strip()):
        not_applicable("the root is on no EBS disk")
    compare.equal(answers["kib"], f"{READ_AHEAD_KIB} KiB", f"{found} KiB")


STAGES = ("libraries", "text_encoders", "transformer", "vae")
STAGES_ON_NEURON = ("libraries", "transformer")
READ = (
    "A boot reads ahead of the worker what the trace names; what is not in it waits for the worker's faults."
)


@check(
    "medium",
    READ,
    "See logs/bake-trace*.log in the run directory; nothing may change the image after the step trace.",
    booted=True,
)
def test_trace(start: Facts, compare: Compare, expect: Expectations) -> None:
    """The image says what a start reads, in order, and its files are still those (R-SPOT)."""
    trace = start["trace"]
    compare.equal(start, "a trace", trace["error"] or "a trace")
    wanted = STAGES_ON_NEURON if expect.neuron_sizes else STAGES
    named = tuple(name for name in trace["stages"] if name in STAGES)
    compare.equal(start, wanted, named)
    compare.none(start, trace["changed"], f"{trace['files']} files as they were traced")


@check(
    "medium",
    "The worker can't write bytecode beside root's code, so it would compile that at each start.",
    "Find what came or changed since: uv compiles packages, and 20-worker.sh the pinned Python.",
)
def test_bytecode(start: Facts, compare: Compare) -> None:
    """A start compiles no Python: all that it imports has its bytecode on the image (R-SPOT)."""
    if start["trace"]["error"]:
        not_applicable("there is no trace that would say what a start imports")
    compare.none(start, start["compiled"], "no module without valid bytecode")


def _compiles(expect: Expectations) -> str | None:
    return None if expect.compiled_sizes else "nothing was to be compiled on this builder"


@check(
    "medium",
    "What is not compiled is drawn eagerly, 1.4 times as long; what others may write is not used.",
    "Bake again, on a builder with the workers' GPU: facts/compiled.json has what was compiled.",
    asks=lambda expect: {
        "made": f"cat {layout.COMPILED}/*/compiled.json",
        "open": f"find {layout.COMPILED} ! -user root -o -perm /022",
    },
    applies=_compiles,
)
def test_compiled_blocks(answers: Answers, compare: Compare, expect: Expectations) -> None:
    """The planned sizes of images are compiled, and nobody but root can change the code (R-SPOT)."""
    made = answers["made"]
    sizes = {f"{width}x{height}" for width, height in re.findall(r"\[(\d+), (\d+), \d+\]", made.out)}
    compare.equal(made, set(expect.compiled_sizes), sizes)
    compare.none(answers["open"], answers["open"].lines, "root's, and for nobody else to write")
