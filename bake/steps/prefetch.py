"""Download the weights on the builder while it is provisioned, in a transient unit.

A refusal by the Hub ends the bake at once. A downloader that is killed, or whose machine restarts, is started
again and resumes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bake import units
from bake.aws import Aws, call_errors, unanswered
from bake.errors import BakeError
from bake.layout import BAKE, TOOLS
from bake.planning.plan import Plan
from bake.progress import readable
from bake.run import Run
from bake.ssh import CommandResult, Session
from bake.steps.launch import Instance
from bake.steps.mount_scratch import mount_scratch
from bake.steps.record_ranges import Ranges, record_ranges
from bake.undo import Undo
from bake.weights.lock import Lock
from bake.weights.mirror import Mirror

UNIT = "bake-prefetch"
FACTS = "facts/weights.json"
# Owned by the user and its primary group, whose name may differ from the user's.
_FOLDERS = 'user=$1; shift; install -d -o "$user" -g "$(id --group --name "$user")" "$@"'
STARTS = 4  # in all, of a downloader that ends without a result
NAMED = 3  # leftovers that are named; the unit's log lists all


@dataclass(frozen=True)
class Weights:
    """The downloaded files (path in the repository -> bytes), the snapshot's folder, and the seconds it took.

    `fetched` bytes came over the network, `from_mirror` of them from the mirror; `reused` bytes were there
    already. `disk` describes the disk below the cache, as reported by the downloader.
    """

    files: Mapping[str, int]
    folder: str
    seconds: float
    fetched: int
    reused: int
    from_mirror: int
    starts: int
    disk: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        return sum(self.files.values())


@dataclass(frozen=True)
class Job:
    """All that starting the downloader needs, and restarting it."""

    session: Session
    plan: Plan
    aws: Aws
    run: Run
    mirror: Mirror | None

    def start(self, number: int) -> units.Unit:
        """Start it for the `number`th time; the token goes in by stdin and stays in memory."""
        if number > 1:
            units.settle(self.session)
            mount_scratch(self.session, self.plan, self.run)  # a restart unmounts it
        return units.start(
            self.session,
            UNIT if number == 1 else f"{UNIT}-{number}",
            f"{TOOLS}/python",
            "-m",
            "prefetch",
            f"{BAKE}/weights.json",
            user=self.plan.system.user,
            directory=BAKE,
            environment_file=f"{BAKE}/settings.env",
            stdin=json.dumps(self._secrets()).encode(),
        )

    def _secrets(self) -> dict[str, Any]:
        token = self.plan.profile.weights.token.get_secret_value()
        return {"token": token, "mirror": self._urls()}

    def _urls(self) -> dict[str, Any] | None:
        """Make presigned URLs of the mirror, which are secrets."""
        if self.mirror is None or self.plan.weights.lock is None:
            return None
        try:
            self.mirror.abort()
            urls = self.mirror.document(self.plan.weights.lock.files.values())
        except call_errors() as error:
            _go_without(error, self.run)
            return None
        if self.mirror.read_only:
            self.run.progress.note(
                f"{self.mirror.place} is only read from: AWS answers {self.mirror.read_only}"
            )
        return urls

    def complete(self, event: Mapping[str, Any]) -> None:
        """Complete a multipart upload of the builder's to the mirror; a failure does not fail the bake."""
        assert self.mirror is not None
        try:
            self.mirror.complete(event["sha256"], event["etags"])
        except call_errors() as error:
            self.run.progress.note(f"{event['file']} is not in the mirror: AWS answers {unanswered(error)}")


class Events:
    """Parses a unit's JSON lines as they arrive; an incomplete last line waits for its end."""

    def __init__(self) -> None:
        self.read = 0
        self.last: dict[str, dict[str, Any]] = {}
        self._rest = ""

    def take(self, text: str) -> list[dict[str, Any]]:
        """Return the complete events in `text`; `last` keeps the latest of each kind."""
        self.read += len(text.encode())
        *lines, self._rest = (self._rest + text).split("\n")
        found = []
        for line in lines:
            try:
                event = json.loads(line)
                self.last[event["event"]] = event
            except (ValueError, KeyError, TypeError):
                continue  # another program's line
            found.append(event)
        return found


class Download:
    """A running download; a thread follows it, so that its progress shows at once."""

    def __init__(self, job: Job, unit: units.Unit) -> None:
        self._job = job
        self._progress = job.run.progress
        self._weights: Weights | None = None
        self._ranges = Ranges()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, args=(unit,), name=UNIT, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise the download's error, if any: for the step that runs meanwhile."""
        if self._error is not None:
            raise self._error

    def wait(self) -> Weights:
        """Wait for the end of the download; raises BakeError with the Hub's reason if it refused."""
        with self._progress.step("prefetch"):
            with self._progress.tally.waiting(f"{UNIT} to end"):
                while self._thread.is_alive():
                    self._thread.join(0.2)  # in slices, so that Ctrl-C is noticed
            self.check()
            assert self._weights is not None
            self._progress.transfer("weights", self._weights.bytes, self._weights.bytes)
            record_ranges(self._job.session, self._job.plan, self._ranges)
            self._job.run.remember("prefetch", Weights, self._weights)
            told = {**asdict(self._weights), "bytes": self._weights.bytes}
            self._job.run.keep(FACTS, json.dumps(told, indent=1) + "\n")
            return self._weights

    def _follow(self, unit: units.Unit) -> None:
        try:
            with self._progress.unit("prefetch"):
                self._weights = self._download(unit)
        except BaseException as error:
            self._error = error  # check() and wait() raise it

    def _download(self, unit: units.Unit) -> Weights:
        """Follow it to its result, and start it again where it ends without one."""
        for number in range(1, STARTS + 1):
            unit = self._job.start(number) if number > 1 else unit
            events = Events()
            ended = self._watch(unit, events)
            if "refused" in events.last:
                raise _refusal(events.last["refused"])
            if "done" in events.last and ended is not None and ended.exit_code == 0:
                return _weights(events.last, number)
            self._restart_or_fail(ended, number)
        raise AssertionError("unreachable: the last start raises")

    def _watch(self, unit: units.Unit, events: Events) -> CommandResult | None:
        """Follow one start to its end; None if the machine was restarted and lost the unit."""

        def look() -> None:
            for event in events.take(unit.output("out", after=events.read)):
                self._tell(event)

        try:
            result = unit.wait(look, seconds=1.0, talks=True, measured=False)
        except units.Forgotten:
            return None
        unit.save_logs(self._job.run, result)
        return result

    def _restart_or_fail(self, ended: CommandResult | None, number: int) -> None:
        """Note that a start ended without a result; raise after the last one."""
        why = "the builder was restarted" if ended is None else f"its downloader ended with {ended.exit_code}"
        if number == STARTS:
            if ended is not None:
                ended.check()
            raise BakeError(
                f"the weights were not downloaded: {why}, and so {STARTS} times",
                hint="the run directory has the builder's logs; bake again once you know why",
            )
        self._progress.note(f"the download broke off: {why}; started again where it was")

    def _tell(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "uploaded":
            self._progress.tally.moved("the mirror was given a file")
            self._job.complete(event)
        elif event["event"] == "ranges":
            self._ranges.take(event)
        elif event["event"] == "progress":
            self._progress.transfer(
                "weights", event["done"], event["total"], event.get("rate"), event.get("seconds_left")
            )
        elif text := said(event):
            self._progress.note(text)


def said(event: Mapping[str, Any]) -> str | None:
    """Return the note for an event, if it deserves one."""
    match event["event"]:
        case "disk":
            what = "an instance store" if event.get("scratch") else "EBS"
            kind = f"stands for {what}" if event["stand_in"] else event["model"] or "no model told"
            return (
                f"{'the download' if event.get('scratch') else 'the cache'} is on {event['device']} "
                f"({kind}, {event['filesystem']}): "
                f"{readable(event['free'])} free, {readable(event['needed'])} needed"
            )
        case "leftovers":
            return _leftovers(event["files"], event["bytes"])
        case "retry":
            return f"{event['file']}: {event['why']}; try {event['attempt']} in {event['wait']:.0f} s"
        case "corrected":
            return f"{event['file']}: {event['why']}; fetched again"
        case "mirror":
            return f"mirror: {event['why']}"
    return None


def _leftovers(files: Sequence[Mapping[str, Any]], won: int) -> str:
    """Say what earlier tries left and was removed, and which other files stay."""
    ours = [file for file in files if file["removed"]]
    others = [file for file in files if not file["removed"]]
    told = [f"removed what an earlier try left, {readable(won)}: {_named(ours)}"] if ours else []
    told += [f"the cache also holds, and keeps, {_named(others)}"] if others else []
    return "; ".join(told)


def _named(files: Sequence[Mapping[str, Any]]) -> str:
    named = [f"{file['path']} ({readable(file['bytes'])})" for file in files[:NAMED]]
    return ", ".join(named) + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")


@dataclass(frozen=True)
class Downloaded:
    """A download that an earlier attempt of the run finished."""

    weights: Weights

    def check(self) -> None:
        """Nothing can fail any more."""

    def wait(self) -> Weights:
        """Nothing is waited for."""
        return self.weights


def start(
    session: Session, plan: Plan, aws: Aws, run: Run, undo: Undo, builder: Instance
) -> Download | Downloaded:
    """Start downloading the locked files, as the image's user, or take over what was downloaded."""
    assert plan.weights.lock is not None  # or the plan would have been refused
    # An instance store loses its files when the instance stops: the downloader looks what is there.
    if run.recalls("prefetch") and (not plan.profile.weights.scratch or run.recalls("quantize")):
        run.progress.note("prefetch: done before, and taken over")
        return Downloaded(run.recall("prefetch", Weights))
    if run.attempt > 1:
        mount_scratch(session, plan, run)  # a restart unmounts it
    session.run("sh", "-c", _FOLDERS, "sh", plan.system.user, *_parents(plan), sudo=True)
    wanted = json.dumps(order(plan, plan.weights.lock, builder.root_volume), indent=1).encode()
    session.run("sh", "-c", 'cat > "$1"', "sh", f"{BAKE}/weights.json", stdin=wanted, sudo=True)
    job = Job(session, plan, aws, run, _mirror(plan, aws, run, undo))
    return Download(job, job.start(1))


def order(plan: Plan, lock: Lock, volume: str) -> dict[str, Any]:
    """Return the downloader's input, without secrets; `reserve` is the bytes that provisioning needs."""
    return {
        **lock.as_dict(),
        "cache": plan.weights.download_cache,
        **_where(plan, volume),
    }


def _where(plan: Plan, volume: str) -> dict[str, Any]:
    """Name the disk that the cache must be on, and the bytes to leave free there."""
    if plan.profile.weights.scratch is None:
        return {
            "reserve": plan.image.disk.beside_weights,
            "volume": {"id": volume, "stand_in": plan.sources.disk, "scratch": False},
        }
    return {"reserve": 0, "volume": {"id": None, "stand_in": plan.sources.scratch, "scratch": True}}


def _mirror(plan: Plan, aws: Aws, run: Run, undo: Undo) -> Mirror | None:
    uri = plan.profile.weights.mirror
    if uri is None:
        return None
    try:
        mirror = Mirror.open(uri, aws)
    except call_errors() as error:
        _go_without(error, run)
        return None
    look = ("list-multipart-uploads", "--bucket", mirror.place.bucket)
    by_hand = aws.command("s3api", *look, region=mirror.region)
    undo.add(f"unfinished uploads to {mirror.place}", mirror.abort, by_hand=by_hand)
    return mirror


def _go_without(error: Exception, run: Run) -> None:
    """Note why there is no mirror; the download only takes longer."""
    run.progress.note(f"no mirror, the Hub serves: AWS answers {unanswered(error)}")


def _parents(plan: Plan) -> list[str]:
    """List the folders to create for the user: those below the home, or else the cache alone."""
    home, cache = plan.system.home, plan.weights.cache
    if not cache.startswith(f"{home}/"):
        return [cache]
    parts = cache.removeprefix(f"{home}/").split("/")
    return [f"{home}/{'/'.join(parts[: length + 1])}" for length in range(len(parts))]


def _weights(last: Mapping[str, Mapping[str, Any]], starts: int) -> Weights:
    done, disk = last["done"], last.get("disk", {})
    return Weights(
        files=done["files"],
        folder=done["folder"],
        seconds=done["seconds"],
        fetched=done["fetched"],
        reused=done["reused"],
        from_mirror=done["from_mirror"],
        starts=starts,
        disk={key: value for key, value in disk.items() if key != "event"},
    )


def _refusal(event: Mapping[str, Any]) -> BakeError:
    return BakeError(f"the weights were not downloaded: {event['reason']}", hint=event.get("hint"))
