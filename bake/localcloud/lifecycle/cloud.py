"""Bring the local cloud up and down, and query it. The cloud itself runs in another process (daemon.py)."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from bake import interrupt, resources, surroundings
from bake.errors import BakeError, UsageError
from bake.localcloud import host
from bake.localcloud.api.access import keys
from bake.localcloud.hub.tiny_flux import VERSION
from bake.localcloud.images import neuron
from bake.localcloud.images.base import base as build_base
from bake.localcloud.images.bases import BASES, find_bases
from bake.localcloud.images.store import ImageStore
from bake.localcloud.lifecycle.local_cloud import LocalCloud, describe
from bake.localcloud.lifecycle.prepared import Prepared
from bake.localcloud.lifecycle.saved import check as check_saved
from bake.localcloud.lifecycle.state import Status
from bake.localcloud.lifecycle.sweep import sweep
from bake.localcloud.lifecycle.users import User
from bake.localcloud.machines import isolation
from bake.localcloud.network import bridge, control, egress
from bake.localcloud.packages import neuron_sdk, python_release
from bake.localcloud.packages.needed import require_packages
from bake.localcloud.packages.wheels import wheels
from bake.localcloud.settings import Delays, Settings

Say = Callable[[str], None]
START_TIMEOUT = 180.0
ANY_DELAYS = Delays()
STOP_TIMEOUT = 150.0  # longer than the daemon itself waits for its machines


def _quiet(text: str) -> None:
    """Say nothing."""


def up(
    *,
    owner_pid: int | None = None,
    trust_guests: bool = False,
    delays: Delays = ANY_DELAYS,
    lazy_disks: str | None = None,
    egress_hosts: Sequence[str] = (),
    saved: Path | None = None,
    say: Say = _quiet,
) -> LocalCloud:
    """Bring the cloud up unless it is up, and return it.

    With `owner_pid` it goes down by itself once that process and all other owners have ended; without, it
    stays until `down`. With `lazy_disks`, root volumes of instances launched from now on fill while they
    are read, as it says (machines/filling.py). With `egress_hosts`, machines reach these hosts outside, and
    no others. With `saved`, the folder of a saved cloud, it comes up as a copy of that one. A cloud that is
    up keeps its `delays`. UsageError without root, if a tool or the network is not available, or if machines
    would have this host's root and the caller doesn't `trust_guests`.
    """
    host.require_root()
    settings = Settings.load().with_delays(delays)
    host.require_tools()
    require_packages()
    if saved is not None:
        check_saved(saved, settings)
    with _lock(settings):
        running = _health(settings)
        if running is not None and saved is not None:
            raise UsageError("a local cloud is up already", hint="take it down first: bake local down")
        if running is not None and running["trust_guests"] and not trust_guests:
            raise UsageError(
                "the local cloud that is up trusts its machines: their root is this host's root",
                hint="use it all the same with --trust-guests, or take it down: bake local down",
            )
        if running is None or not _join(settings, owner_pid):
            _stop(settings)  # a cloud that does not answer, or is going down
            with bridge.claim(settings):  # fails if another cloud has it, before anything is changed
                settings = _isolated(settings, trust_guests, say)
            prepared = _prepare(settings, say)
            _start(settings, prepared, owner_pid, saved, say)
            running = _health(settings) or {}
        elif differing := _other_delays(running, settings, delays):
            say(differing)
        if lazy_disks is not None:
            control.over_socket(settings)("POST", "/-/lazy-disks", lazy_disks.encode())
        if egress_hosts:
            declare_egress(egress_hosts, everybody=True)
        return describe(settings, running)


def _other_delays(running: dict[str, Any], settings: Settings, asked: Delays) -> str | None:
    """That the cloud that is up has other delays than are wanted; None if it has not."""
    has = Delays(running["seed"], running["lenient"])
    other_seed = asked.seed is not None and not settings.lenient and asked.seed != has.seed
    if has.lenient == settings.lenient and not other_seed:
        return None
    kept = "no delays (--lenient)" if has.lenient else f"the delays of seed {has.seed}"
    return f"the local cloud that is up keeps {kept}; for others take it down first: bake local down"


def _join(settings: Settings, owner_pid: int | None) -> bool:
    """Register as an owner of the cloud that is up; False if it is going down."""
    path = "/-/keep" if owner_pid is None else f"/-/owners?pid={owner_pid}"
    try:
        return bool(control.over_socket(settings)("POST", path, None)["up"])
    except control.NoAnswer:  # it has just gone down
        return False


def down(say: Say = _quiet) -> None:
    """Take the cloud down, even after a crash. AMIs and caches stay on disk."""
    host.require_root()
    settings = Settings.load()
    with _lock(settings):
        _stop(settings)
        for leftover in sweep(settings):
            say(f"removed a leftover: {leftover}")


def save(folder: Path) -> None:
    """Save the cloud that is up in a new folder; `up` makes copies of it. UsageError if none is up."""
    settings = Settings.load()
    if _health(settings) is None:
        raise UsageError("the local cloud is not up", hint="bake local up")
    control.over_socket(settings)("POST", "/-/save", str(folder.absolute()).encode())


def users() -> list[User]:
    """The processes that use the cloud; none if it is down."""
    settings = Settings.load()
    if _health(settings) is None:
        return []
    try:
        pids = control.over_socket(settings)("GET", "/-/owners", None)
    except control.NoAnswer:
        return []
    return [User.of(int(pid)) for pid in pids]


def current() -> LocalCloud | None:
    """The cloud that is up, or None."""
    settings = Settings.load()
    about = _health(settings)
    return describe(settings, about) if about else None


def status() -> Status | None:
    """The instances and AMIs of the cloud; None if it is down."""
    settings = Settings.load()
    if _health(settings) is None:
        return None
    return Status.of(control.over_socket(settings)("GET", "/-/status", None))


@contextmanager
def running(
    say: Say = _quiet, *, trust_guests: bool = False, delays: Delays = ANY_DELAYS
) -> Iterator[LocalCloud]:
    """Use the cloud, bringing it up if it is down; then it goes down with its last user."""
    settings = Settings.load()
    cloud = up(owner_pid=os.getpid(), trust_guests=trust_guests, delays=delays, say=say)
    pid = (_health(settings) or {}).get("pid")
    before = _refused(settings)
    try:
        yield cloud
    except BakeError as error:
        if new := sorted(_refused(settings) - before):
            error.add_note(
                f"machines were refused what nobody had declared: {', '.join(new)}; a rehearsal declares the "
                "hosts that its plan lists, and the Git host of worker.source"
            )
        raise
    finally:
        with suppress(BakeError):
            if control.over_socket(settings)("DELETE", f"/-/owners?pid={os.getpid()}", None)["last"] and pid:
                with _lock(settings):
                    _await_end(pid)


def declare_egress(hosts: Iterable[str], *, everybody: bool = False) -> None:
    """Let machines of bakes, or everybody's, reach these hosts outside, and none that nobody declared.

    A host is a name, a pattern with `*`, an address, a network or a URL.
    """
    content = json.dumps({"hosts": list(hosts), "everybody": everybody}).encode()
    control.over_socket(Settings.load())("POST", egress.ROUTE, content)


def _refused(settings: Settings) -> set[str]:
    """The destinations that machines were refused so far."""
    with suppress(BakeError):
        return set(egress.named(control.over_socket(settings)("GET", egress.ROUTE, None)))
    return set()


def provide(system: str, accelerator: str = "cuda", say: Say = _quiet) -> None:
    """Build the base AMI of an operating system and accelerator unless it exists."""
    settings = Settings.load()
    prepared = Prepared.load(settings.state / "prepared.json")
    base = prepared.bases[system]
    wanted = [base.disk, neuron.disk(base.disk)] if accelerator == "neuron" else [base.disk]
    if all(one.exists() for one in wanted):
        return  # without the lock, which another cloud may hold for minutes while it builds
    with _cache_lock(settings):
        with surroundings.users_network():
            BASES[system].build(base, say)
        if accelerator == "neuron":
            neuron.build(base.disk, say)


def _isolated(settings: Settings, trust_guests: bool, say: Say) -> Settings:
    """The settings of the cloud: its machines have their own users, or the caller trusts them with root."""
    problem = isolation.problem(settings)
    if problem is None:
        return settings
    if not trust_guests:
        raise UsageError(
            f"machines can't have their own users on this host, so their root would be its root: {problem}",
            hint="that needs systemd 249 and Linux 5.12; on a machine that only you use, with images that "
            "you trust, go on with --trust-guests",
        )
    say(f"machines share this host's root (--trust-guests): {problem}")
    return replace(settings, trust_guests=True)


def _prepare(settings: Settings, say: Say) -> Prepared:
    settings.cache.mkdir(parents=True, exist_ok=True)
    with _cache_lock(settings):
        with surroundings.users_network():
            image = build_base(settings.cache, say)
            found = wheels(settings.cache, image.python, say)
        hub = _hub(settings, say)
        interpreter = python_release.provide(image, settings, say)
    sdk = neuron_sdk.provide(settings.state / "neuron-sdk", found)
    return Prepared(
        base=image,
        bases=find_bases(settings, image),
        hub=hub,
        interpreter=interpreter,
        wheel_files=found.files,
        requirements=found.worker,
        tools_requirements=found.tools,
        neuron_files=sdk.files,
        neuron_requirements=sdk.requirements,
        torch=found.torch,
        token=f"hf_{secrets.token_hex(17)}",
    )


def _hub(settings: Settings, say: Say) -> Path:
    key = hashlib.sha256(f"{VERSION}".encode()).hexdigest()[:16]
    place = settings.cache / "hub" / key
    if not place.exists():
        started = time.monotonic()
        say("building a tiny FLUX for the local Hub (once; about 20 s) …")
        work = place.with_name(f"{key}.partial")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        host.run(sys.executable, "-m", "bake.localcloud.hub.tiny_flux", work, timeout=600)
        work.rename(place)
        say(f"built the tiny FLUX in {time.monotonic() - started:.0f} s")
    return place


def _start(
    settings: Settings, prepared: Prepared, owner_pid: int | None, saved: Path | None, say: Say
) -> None:
    for leftover in sweep(settings):
        say(f"removed a leftover of an earlier cloud: {leftover}")
    ImageStore(settings.images).prune(say)
    prepared.save(settings.state / "prepared.json")
    (settings.state / "failure.json").unlink(missing_ok=True)
    log = settings.state / "daemon.log"
    process: subprocess.Popen[bytes] | None = None
    try:
        with interrupt.deferred():  # an interrupt before the assignment would lose the process
            process = _daemon(settings, owner_pid, saved, log)
        deadline = time.monotonic() + START_TIMEOUT
        while _health(settings) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise _failure(settings, log)
            time.sleep(0.05)
    except BaseException:  # any, even an interrupt: remove what a failed start has left
        if process is not None:
            if process.poll() is None:
                # The whole group: a command that it runs might make the bridge after the sweep.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        sweep(settings)
        raise


def _daemon(
    settings: Settings, owner_pid: int | None, saved: Path | None, log: Path
) -> subprocess.Popen[bytes]:
    with log.open("w") as output:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "bake.localcloud.lifecycle.daemon",
                str(owner_pid or ""),
                str(saved.absolute()) if saved else "",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            umask=0o022,  # machines' users read files that it writes
            # Nothing of the user's environment: it answers machines, and needs no token, key or proxy.
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "LC_ALL": "C.UTF-8",
                "PYTHONPATH": str(resources.IMPORTED_FROM),
                **settings.environment(),
            },
        )


def _failure(settings: Settings, log: Path) -> BakeError:
    with suppress(FileNotFoundError):
        content = json.loads((settings.state / "failure.json").read_text())
        return UsageError(content["message"], hint=content["hint"])
    tail = "\n".join(
        f"    {line}" for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
    )
    return BakeError(f"the local cloud did not come up:\n{tail}", hint=f"the whole log: {log}")


def _stop(settings: Settings) -> None:
    """End the daemon, which takes everything down; kill it if it does not end in time."""
    pid = _daemons_pid(settings)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            _await_end(pid)
    (settings.state / "cloud.json").unlink(missing_ok=True)
    keys.remove(settings.state)


def _daemons_pid(settings: Settings) -> int | None:
    """The pid of the running daemon, or None."""
    with suppress(FileNotFoundError, ValueError, ProcessLookupError):
        pid = int(json.loads((settings.state / "cloud.json").read_text())["pid"])
        if b"bake.localcloud.lifecycle.daemon" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    return None


def _await_end(pid: int) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT
    with suppress(FileNotFoundError, ProcessLookupError):
        while "(zombie)" not in Path(f"/proc/{pid}/status").read_text():
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                return
            time.sleep(0.05)


def _health(settings: Settings) -> dict[str, Any] | None:
    """The daemon's description of the cloud, once it is ready; None if it is not up."""
    if _daemons_pid(settings) is None:
        return None
    with suppress(control.NoAnswer):
        about: dict[str, Any] = control.over_socket(settings)("GET", "/-/health", None)
        return about
    return None


@contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    """Allow one `up` or `down` at a time."""
    host.make_private(settings.state)
    with FileLock(settings.state / "lock"):
        yield


def _cache_lock(settings: Settings) -> FileLock:
    """Several clouds may share the cache; one at a time builds what is missing."""
    return FileLock(settings.cache / "lock")
