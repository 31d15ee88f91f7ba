"""Read a snapshot by the EBS direct APIs: which blocks it has, and the SHA-256 of each.

Blocks are read by several threads, and none is kept: memory holds one block a thread, and 32 bytes of each.
"""

from __future__ import annotations

import base64
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from bake import background
from bake.attest.merkle import BLOCK, GIB, ZERO, Content
from bake.aws import Aws, ClientError, call_errors, error_code
from bake.errors import BakeError
from bake.retries import is_passing

THREADS = 16
"""AWS answers 1,000 GetSnapshotBlock a second and account by default; one thread gets some 20 of them."""
PAGE = 10_000  # blocks of one list, as many as AWS gives
TRIES = 5  # of one block, of whose answer a part was lost or is not what its checksum says
EXPIRED = "INVALID_BLOCK_TOKEN"


class Stopped(BakeError):
    """Nobody wants to know any more what a snapshot holds."""


@dataclass
class Reading:
    """One snapshot that is being read. `read` and `listed` count its blocks, `seconds` how long that took."""

    aws: Aws
    snapshot: str
    threads: int = THREADS
    listed: int = 0
    read: int = 0
    seconds: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _blocks: dict[int, bytes] = field(default_factory=dict)

    def stop(self) -> None:
        """Read no further; `content` raises Stopped."""
        self._stop.set()

    def content(self, gib: int | None = None) -> Content:
        """Read it all. Raises BakeError where the volume is not of `gib` GiB, or a block can't be had.

        What AWS refuses or does not answer is raised as botocore raises it.
        """
        began, todo = time.monotonic(), queue.Queue[tuple[int, str]](maxsize=4 * self.threads)
        pages = self._pages()
        first = next(pages)
        size = _size(first, self.snapshot, gib)
        workers = [background.start(lambda: self._work(todo)) for _ in range(self.threads)]
        try:
            self._hand_out(first, todo, workers)
            for page in pages:
                self._hand_out(page, todo, workers)
        except BaseException:
            self._stop.set()
            raise
        finally:
            for _ in workers:
                _put(todo, _END, self._stop, workers)
        _first_error(workers)
        self.seconds = time.monotonic() - began
        return Content(size, self._blocks)

    def _pages(self) -> Iterator[dict[str, Any]]:
        """The pages of ListSnapshotBlocks; one may be empty without being the last."""
        more: dict[str, Any] = {}
        while True:
            page = self.aws.ebs.list_snapshot_blocks(SnapshotId=self.snapshot, MaxResults=PAGE, **more)
            yield page
            if not page.get("NextToken"):
                return
            more = {"NextToken": page["NextToken"]}

    def _hand_out(self, page: dict[str, Any], todo: Todo, workers: list[Future[None]]) -> None:
        for block in page["Blocks"]:
            _put(todo, (block["BlockIndex"], block["BlockToken"]), self._stop, workers)
            self.listed += 1

    def _work(self, todo: Todo) -> None:
        """Read blocks until there are no more."""
        try:
            while (block := todo.get()) is not _END:
                if self._stop.is_set():
                    raise Stopped(f"{self.snapshot} was not read to its end")
                digest = self._digest(*block)
                with self._lock:
                    self.read += 1
                    if digest != ZERO:
                        self._blocks[block[0]] = digest
                self.aws.tally.grew(f"reading {self.snapshot}", self.read)
        except BaseException:
            self._stop.set()
            raise

    def _digest(self, index: int, token: str) -> bytes:
        """The SHA-256 of a block, held against its checksum; read anew where the answer was cut short."""
        why = ""
        for number in range(TRIES):
            try:
                return _checked(self._block(index, token))
            except Damaged as error:
                why = str(error)
            except call_errors() as error:
                if _reason(error) == EXPIRED and number == 0:
                    token, why = self._token(index), "its token has expired"
                    continue
                if not _is_cut(error):
                    raise
                why = type(error).__name__
            with self.aws.tally.waiting(f"block {index} of {self.snapshot}") as wait:
                wait.pause(0.2 * 1.6**number)
        raise BakeError(
            f"block {index} of {self.snapshot} can't be read: {why}",
            hint="its bytes are nobody's word for anything; try again, and ask AWS Support if it stays so",
        )

    def _block(self, index: int, token: str) -> tuple[dict[str, Any], bytes]:
        answer = self.aws.ebs.get_snapshot_block(SnapshotId=self.snapshot, BlockIndex=index, BlockToken=token)
        return answer, answer["BlockData"].read()

    def _token(self, index: int) -> str:
        """A new token of a block whose own has expired, as all do after a week."""
        page = self.aws.ebs.list_snapshot_blocks(
            SnapshotId=self.snapshot, StartingBlockIndex=index, MaxResults=100
        )
        for block in page["Blocks"]:
            if block["BlockIndex"] == index:
                return str(block["BlockToken"])
        raise BakeError(f"{self.snapshot} does not have block {index} any more: it changed while it was read")


Todo = queue.Queue[tuple[int, str]]
_END = (-1, "")


class Damaged(Exception):
    """An answer that is not what its checksum or its length says."""


def read(
    aws: Aws, snapshot: str, gib: int | None = None, note: Callable[[str], None] | None = None
) -> Content:
    """What a snapshot holds; `note` is told how long that took."""
    reading = Reading(aws, snapshot)
    content = reading.content(gib)
    if note is not None:
        note(told(reading))
    return content


def told(reading: Reading) -> str:
    """How much of a snapshot was read, in which time."""
    size, seconds = reading.read * BLOCK, max(reading.seconds, 0.001)
    return (
        f"read {reading.read:,} blocks of {reading.snapshot} ({size / GIB:.2f} GiB) in {seconds:.1f} s, "
        f"{size / seconds / 1e6:.0f} MB/s"
    )


def _size(page: dict[str, Any], snapshot: str, gib: int | None) -> int:
    """The volume's size in GiB, as the list of blocks says."""
    size = int(page["VolumeSize"])
    if page["BlockSize"] != BLOCK:
        raise BakeError(
            f"the blocks of {snapshot} have {page['BlockSize']} bytes: the digest is defined for {BLOCK}"
        )
    if gib is not None and gib != size:
        raise BakeError(f"{snapshot} is of a volume of {size} GiB, and not of {gib} GiB")
    return size


def _checked(answer: tuple[dict[str, Any], bytes]) -> bytes:
    """The digest of a block; Damaged unless it is what the answer's headers say."""
    head, content = answer
    digest = hashlib.sha256(content).digest()
    if len(content) != BLOCK or head.get("DataLength", BLOCK) != BLOCK:
        raise Damaged(f"it came with {len(content)} bytes of {head.get('DataLength', BLOCK)}")
    if head.get("ChecksumAlgorithm") != "SHA256" or base64.b64encode(digest).decode() != head.get("Checksum"):
        raise Damaged("it is not what its checksum says")
    return digest


def _reason(error: BaseException) -> str:
    """The reason that an error of the EBS direct APIs gives; empty if there is none."""
    return str(error.response.get("Reason", "")) if isinstance(error, ClientError) else ""


def _is_cut(error: BaseException) -> bool:
    """Whether the connection was lost within an answer: the calls' own retries end with its head."""
    return not error_code(error) and (is_passing(error) or type(error).__name__ == "IncompleteReadError")


def _put(todo: Todo, block: tuple[int, str], stop: threading.Event, workers: list[Future[None]]) -> None:
    """Hand a block out as soon as somebody has room for it; Stopped, or their error, once nobody reads."""
    while True:
        try:
            todo.put(block, timeout=0.2)
            return
        except queue.Full:
            if block is _END and all(worker.done() for worker in workers):
                return
            if stop.is_set() and block is not _END:
                _first_error(workers)
                raise Stopped("reading was stopped") from None


def _first_error(workers: list[Future[None]]) -> None:
    """Wait for all, and raise what the first of them failed with; that others were stopped tells less."""
    errors = [error for worker in workers if (error := worker.exception()) is not None]
    for error in sorted(errors, key=lambda one: isinstance(one, Stopped)):
        raise error
