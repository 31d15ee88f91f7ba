"""Download the weights on the builder, beside provisioning, as a unit of their own.

A refusal stops the bake at once. A downloader that was killed, or whose machine was restarted, is started
again and goes on where it was.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from bake.undo import Undo
from bake.weights.lock import Lock
from bake.weights.mirror import Mirror

UNIT = "bake-prefetch"
# Of the user and its own group, which need not have the user's name.
_FOLDERS = 'user=$1; shift; install -d -o "$user" -g "$(id --group --name "$user")" "$@"'
STARTS = 4  # the first one, and three more for a downloader that ends without a word
NAMED = 3  # leftovers that are told by name; the unit's log has them all


@dataclass(frozen=True)
class Weights:
    """What is in the cache now: path in the repo -> bytes, the snapshot's directory, seconds it took.

    `fetched` came over the network, `from_mirror` of that from the mirror, `reused` was there already: bytes.
    `disk` is what was found below the cache, as the downloader told it.
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
    """What it takes to start the downloader, and to start it again."""

    session: Session
    plan: Plan
    aws: Aws
    run: Run
    mirror: Mirror | None

    def start(self, number: int) -> units.Unit:
        """Start it for the `number`th time; the token goes in by stdin and stays in memory."""
        if number > 1:
            units.settle(self.session)
            mount_scratch(self.session, self.plan, self.run)  # a restart has taken the mount away
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
        """Presigned URLs of the mirror: as secret as the rights that they carry."""
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
        """Make one object of what the builder sent to the mirror; failing at that fails no bake."""
        assert self.mirror is not None
        try:
            self.mirror.complete(event["sha256"], event["etags"])
        except call_errors() as error:
            self.run.progress.note(f"{event['file']} is not in the mirror: AWS answers {unanswered(error)}")


class Events:
    """Reads a unit's JSON lines as they come; a line that is still being written waits for its end."""

    def __init__(self) -> None:
        self.read = 0
        self.last: dict[str, dict[str, Any]] = {}
        self._rest = ""

    def take(self, text: str) -> list[dict[str, Any]]:
        """The events that are whole now; `last` keeps the last one of each kind."""
        self.read += len(text.encode())
        *lines, self._rest = (self._rest + text).split("\n")
        found = []
        for line in lines:
            try:
                event = json.loads(line)
                self.last[event["event"]] = event
            except (ValueError, KeyError, TypeError):
                continue  # not one of the downloader's own lines
            found.append(event)
        return found


class Download:
    """A download on its way; a thread of its own follows it, so that what it says shows at once."""

    def __init__(self, job: Job, unit: units.Unit) -> None:
        self._job = job
        self._progress = job.run.progress
        self._weights: Weights | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._follow, args=(unit,), name=UNIT, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong, if anything did: for a step that runs beside the download."""
        if self._error is not None:
            raise self._error

    def wait(self) -> Weights:
        """Return when everything is there; raises BakeError with what the Hub said, if it refused."""
        with self._progress.tally.waiting():
            while self._thread.is_alive():
                self._thread.join(0.2)  # in slices, so that Ctrl-C is heard
        self.check()
        assert self._weights is not None
        self._progress.transfer("weights", self._weights.bytes, self._weights.bytes)
        return self._weights

    def _follow(self, unit: units.Unit) -> None:
        try:
            for number in range(1, STARTS + 1):
                unit = self._job.start(number) if number > 1 else unit
                events = Events()
                ended = self._attend(unit, events)
                if "refused" in events.last:
                    raise _refusal(events.last["refused"])
                if "done" in events.last and ended is not None and ended.exit_code == 0:
                    self._weights = _weights(events.last, number)
                    return
                self._mourn(ended, number)
        except BaseException as error:
            self._error = error  # raised where the bake looks at it or waits for it

    def _attend(self, unit: units.Unit, events: Events) -> CommandResult | None:
        """Follow one start to its end; None when the machine forgot the unit, that is, was restarted."""

        def look() -> None:
            for event in events.take(unit.output("out", after=events.read)):
                self._tell(event)

        try:
            result = unit.wait(look, seconds=1.0)
        except units.Forgotten:
            return None
        unit.save_logs(self._job.run, result)
        return result

    def _mourn(self, ended: CommandResult | None, number: int) -> None:
        """Say that a start ended without a word; raise once there were enough of them."""
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
            self._job.complete(event)
        elif event["event"] == "progress":
            self._progress.transfer(
                "weights", event["done"], event["total"], event.get("rate"), event.get("seconds_left")
            )
        elif text := said(event):
            self._progress.note(text)


def said(event: Mapping[str, Any]) -> str | None:
    """What a person is told of an event, if anything."""
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
    """What of earlier tries is gone, with the bytes won, and what is somebody else's and stays."""
    ours = [file for file in files if file["removed"]]
    others = [file for file in files if not file["removed"]]
    told = [f"removed what an earlier try left, {readable(won)}: {_named(ours)}"] if ours else []
    told += [f"the cache also holds, and keeps, {_named(others)}"] if others else []
    return "; ".join(told)


def _named(files: Sequence[Mapping[str, Any]]) -> str:
    named = [f"{file['path']} ({readable(file['bytes'])})" for file in files[:NAMED]]
    return ", ".join(named) + (f" and {len(files) - NAMED} more" if len(files) > NAMED else "")


def start(session: Session, plan: Plan, aws: Aws, run: Run, undo: Undo, builder: Instance) -> Download:
    """Start the download of what is locked, as the image's user."""
    assert plan.weights.lock is not None  # or the plan would have been refused
    session.run("sh", "-c", _FOLDERS, "sh", plan.system.user, *_parents(plan), sudo=True)
    wanted = json.dumps(order(plan, plan.weights.lock, builder.root_volume), indent=1).encode()
    session.run("sh", "-c", 'cat > "$1"', "sh", f"{BAKE}/weights.json", stdin=wanted, sudo=True)
    job = Job(session, plan, aws, run, _mirror(plan, aws, run, undo))
    return Download(job, job.start(1))


def order(plan: Plan, lock: Lock, volume: str) -> dict[str, Any]:
    """What the downloader is to do; nothing secret. `reserve`: bytes that provisioning needs of the disk."""
    return {
        **lock.as_dict(),
        "cache": plan.weights.download_cache,
        **_where(plan, volume),
    }


def _where(plan: Plan, volume: str) -> dict[str, Any]:
    """What the cache must lie on, and what others need there: the root volume, or an instance store alone."""
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
    """Say why there is no mirror: that costs time, and nothing else."""
    run.progress.note(f"no mirror, the Hub serves: AWS answers {unanswered(error)}")


def _parents(plan: Plan) -> list[str]:
    """The cache and its parents below the home; somewhere else only the cache itself is the user's."""
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
