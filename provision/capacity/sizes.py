"""Measure directories and file systems. Python 3.6, standard library."""

import os
import threading
import time

# One thread counts 100,000 files a second in memory, where more are in each other's way. A disk that fills
# from S3 takes milliseconds for each answer, and gives many at once.
THREADS = 16
SLOW = 10000  # files a second
OTHERS = 8
OTHERS_FROM = 256 << 20
DEPTH = 3


class Walk:
    """Adds up directories, several at once, until all are done or the deadline is reached."""

    def __init__(self, deadline):
        self.deadline = deadline
        self.lock = threading.Condition()
        self.waiting = []
        self.busy = 0
        self.bytes = {}
        self.files = 0
        self.seen = set()
        self.skip = set()
        self.left = {}
        self.mounts = mount_points()
        self.device = os.lstat("/").st_dev

    def add(self, path, label, deep=0):
        """Add a directory to count for `label`; with `deep`, count its parts down to that depth."""
        self.bytes.setdefault(label, 0)
        with self.lock:
            self.waiting.append((path, label, deep))
            self.left[label] = self.left.get(label, 0) + 1

    def run(self, skip=()):
        """Count everything that was added, except below the paths in `skip`."""
        self.skip = set(skip)
        threads = []
        while time.monotonic() < self.deadline:
            if len(threads) < THREADS:
                threads.append(threading.Thread(target=self._work, daemon=True))
                threads[-1].start()
            before, ends = self.files, time.monotonic() + 0.5
            for thread in threads:
                thread.join(max(0.0, ends - time.monotonic()))
            if not any(thread.is_alive() for thread in threads):
                return
            while self.files - before > SLOW / 2 and time.monotonic() < self.deadline:
                before = self.files
                threads[0].join(0.5)

    def complete(self, label):
        return not self.left.get(label)

    def _work(self):
        while time.monotonic() < self.deadline:
            with self.lock:
                while not self.waiting and self.busy:
                    self.lock.wait(0.05)
                if not self.waiting:
                    self.lock.notify_all()
                    return
                item = self.waiting.pop()
                self.busy += 1
            found = self._directory(*item)
            with self.lock:
                self._take(item[1], found)
                self.busy -= 1
                self.lock.notify_all()

    def _directory(self, path, label, deep):
        """Bytes, links that count once, directories below."""
        total, files, links, below = 0, 0, [], []
        try:
            entries = list(os.scandir(path))
        except OSError:  # gone, or not to be read
            entries = []
        for entry in entries:
            # Never read a mount: a network file system may not answer.
            if entry.path in self.mounts or entry.path in self.skip:
                continue
            try:
                stat = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.st_dev != self.device:
                continue
            files += 1
            folder = entry.is_dir(follow_symlinks=False)
            if stat.st_nlink > 1 and not folder:
                links.append((stat.st_ino, stat.st_blocks * 512))
            else:
                total += stat.st_blocks * 512
            if folder:
                below.append((entry.path, entry.path if deep else label, max(0, deep - 1)))
        return total, files, links, below

    def _take(self, label, found):
        total, files, links, below = found
        self.files += files
        for inode, size in links:
            if inode not in self.seen:
                self.seen.add(inode)
                total += size
        self.bytes[label] = self.bytes.get(label, 0) + total
        for path, name, deep in below:
            self.waiting.append((path, name, deep))
            self.left[name] = self.left.get(name, 0) + 1
        self.left[label] -= 1


def mount_points():
    """List mount points, without reading any of them."""
    with open("/proc/self/mountinfo", "rb") as stream:
        fields = [line.split() for line in stream.read().splitlines()]
    found = {}
    for line in fields:
        place = os.fsdecode(line[4].decode("unicode_escape").encode("latin-1"))
        rest = line[line.index(b"-") + 1 :]
        found[place] = (os.fsdecode(rest[0]), os.fsdecode(rest[1]))
    return found


def mount_of(path, mounts):
    """Return the mount point above a path, which need not exist; links are resolved."""
    path = os.path.realpath(path)
    while path not in mounts and path != "/":
        path = os.path.dirname(path)
    return path


def filesystem(place, mounts):
    kind, device = mounts[place]
    found = os.statvfs(place)
    return {
        "size": found.f_blocks * found.f_frsize,
        "used": (found.f_blocks - found.f_bfree) * found.f_frsize,
        "available": found.f_bavail * found.f_frsize,
        "device": device,
        "type": kind,
    }


def largest(walk, tops, start="/"):
    """List the largest directories down to a depth, except for the named ones."""
    walk.add(start, start, DEPTH)
    walk.run(skip=tops)
    large = {path: size for path, size in walk.bytes.items() if path.startswith("/") and size >= OTHERS_FROM}
    ordered = sorted(large.items(), key=lambda item: -item[1])
    return [{"path": path, "bytes": size} for path, size in ordered[:OTHERS]]
