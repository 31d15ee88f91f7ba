"""The weights' download against `hf download` of the same files from the same local Hub, in turn.

    python3 tests/bench/bench_weights.py                  # 8 GB, three times each: needs 17 GB of disk
    python3 tests/bench/bench_weights.py --gigabytes 1 --xet

Random data in the proportions of FLUX.1-dev's files. `hf download` checks no hash and leaves its data to the
kernel to write; ours counts until every byte is hashed and on the disk. Both start with no cache and with no
dirty pages, and the Hub's files are in the page cache for both. The first turn is not counted: on a virtual
machine the memory that files go through is slow when it is touched for the first time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "provision")]

from downloads import TOKEN, Downloads, HubProcess, lock_of, make_repository  # noqa: E402

from bake.weights.flux import REPO, REVISION, SIZES  # noqa: E402


def show(what: str, amount: float, unit: str) -> None:
    print(f"{what:<58}{amount:10.2f} {unit}", flush=True)


def hf_download(hub: HubProcess, cache: Path) -> tuple[float, float]:
    """Seconds of `hf download`, as it comes, and its seconds of CPU."""
    environment = {
        "PATH": os.environ["PATH"],
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(cache.parent / "home"),
        "no_proxy": "*",
    }
    command = [str(Path(sys.executable).with_name("hf")), "download", REPO]
    command += ["--revision", REVISION, "--cache-dir", str(cache)]
    started = time.monotonic()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, process.returncode, usage = os.wait4(process.pid, 0)
    if process.returncode:
        sys.exit("hf download failed")
    return time.monotonic() - started, usage.ru_utime + usage.ru_stime


def ours(downloads: Downloads) -> tuple[float, float]:
    """Seconds of our download to the last hash, and its seconds of CPU; the rest is shown."""
    started = time.monotonic()
    process = downloads.start()
    assert process.stdout is not None
    last = process.stdout.readlines()[-1]
    _, process.returncode, usage = os.wait4(process.pid, 0)
    done = json.loads(last)
    if done["event"] != "done":
        sys.exit(last)
    took = time.monotonic() - started
    show("  the last hash after the last byte", done["verified_seconds"], "s")
    show("  peak memory", usage.ru_maxrss / 1024, "MiB (aim: under 500)")
    return took, usage.ru_utime + usage.ru_stime


def prepare(repository: Path, *folders: Path) -> None:
    """Have the Hub's files in memory, remove what was downloaded, and let the disk come to rest."""
    for path in repository.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as reader:
                while reader.read(1 << 24):
                    pass
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    os.sync()


def by_hf(hub: HubProcess, cache: Path) -> tuple[float, float]:
    """Seconds of `hf download`, and of its CPU; what it leaves to do is shown."""
    took, cpu = hf_download(hub, cache)
    show("hf download, nothing verified", took, "s")
    started = time.monotonic()
    os.sync()
    show("  until its data is on the disk, beside that", time.monotonic() - started, "s")
    show("  of CPU", cpu, "s")
    return took, cpu


def by_prefetch(downloads: Downloads) -> tuple[float, float]:
    """Seconds of ours, and of its CPU."""
    took, cpu = ours(downloads)
    show("prefetch, to all verified and on the disk", took, "s")
    show("  of CPU", cpu, "s")
    return took, cpu


def in_turn(hub: HubProcess, work: Path, downloads: Downloads, times: int) -> None:
    """Both, several times, alternating which is first."""
    ways: dict[str, Callable[[], tuple[float, float]]] = {
        "hf download": lambda: by_hf(hub, work / "hf"),
        "prefetch": lambda: by_prefetch(downloads),
    }
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(times + 1):
        title = f"turn {turn} of {times}" if turn else "to warm up, not counted"
        print(f"-- {title}; load of the machine {os.getloadavg()[0]:.1f}", flush=True)
        for name in sorted(ways, reverse=bool(turn % 2)):
            prepare(work / "repo", work / "hf", downloads.cache)
            figures[name].append(ways[name]())
        show("prefetch / hf download", figures["prefetch"][-1][0] / figures["hf download"][-1][0], "")
    compare(figures["prefetch"][1:], figures["hf download"][1:])


def compare(own: list[tuple[float, float]], other: list[tuple[float, float]]) -> None:
    """The figure that the aim is about, by turns and by medians; CPU counts on a machine that is busy."""
    print("--", flush=True)
    (own_took, own_cpu), (other_took, other_cpu) = zip(*own, strict=True), zip(*other, strict=True)
    turns = [one / another for one, another in zip(own_took, other_took, strict=True)]
    show("prefetch to verified / hf download, each turn, the median", statistics.median(turns), "")
    ratio = statistics.median(own_took) / statistics.median(other_took)
    show("prefetch to verified / hf download, of the medians", ratio, "(aim: at most 1.1)")
    ratio = statistics.median(own_cpu) / statistics.median(other_cpu)
    show("the same of their seconds of CPU", ratio, "")


def killed_at_half(hub: HubProcess, work: Path, downloads: Downloads) -> None:
    """Kill it when half is there, start it again, and count what the Hub sent in all.

    What is sent twice was in the connections' buffers when they broke: so many MB, however large the files.
    """
    prepare(work / "repo", downloads.cache)
    hub.forget()
    process = downloads.start()
    while hub.sent() < downloads.bytes / 2:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    sent = hub.sent()
    done = downloads.run().last("done")
    again = hub.sent() - downloads.bytes
    show("killed at half: sent by then", sent / downloads.bytes * 100, "% of all")
    show("killed at half: kept of that", done["reused"] / sent * 100, "%")
    show("killed at half: sent twice", again / 1e6, "MB")
    show("killed at half: sent twice, of what was sent by then", again / sent * 100, "% (aim: under 2)")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=8.0)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--xet", action="store_true", help="both by Xet, from a store on this machine")
    parser.add_argument("--folder", type=Path, help="where it is done; default: the temporary directory")
    options = parser.parse_args()
    scale = options.gigabytes * 1e9 / sum(SIZES.values())
    work = Path(tempfile.mkdtemp(prefix="bench-weights-", dir=options.folder))
    try:
        make_repository(work / "repo", {name: max(1, int(size * scale)) for name, size in SIZES.items()})
        hub = HubProcess(work / "repo", ("--xet",) if options.xet else ())
        try:
            downloads = Downloads(hub.url, lock_of(work / "repo"), work / "cache", options=())
            print(
                f"{downloads.bytes / 1e9:.2f} GB in {len(downloads.files)} files, {os.cpu_count()} cores",
                flush=True,
            )
            in_turn(hub, work, downloads, options.times)
            if not options.xet:  # the Hub sees nothing of what Xet sends
                killed_at_half(hub, work, downloads)
        finally:
            hub.stop()
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
