"""EC2 as an instance sees it, from a fake server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

STAND_IN = Path(__file__).with_name("fake_ec2.py")
REGION = "eu-north-1"  # the instance's, which is not the queue's


@dataclass
class Ec2:
    """An instance's view of EC2; a file in its folder is what the metadata service tells."""

    folder: Path
    endpoint: str

    def tell(self, path: str, text: str) -> None:
        self.write(f"meta-data/{path}", text)

    def write(self, name: str, text: str) -> None:
        """Whole at once: the stand-in may read it at any moment."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "new").write_text(text)
        (self.folder / "new").rename(file)

    def spot(self, seconds: float) -> None:
        at = datetime.now(UTC) + timedelta(seconds=seconds)
        self.tell(
            "spot/instance-action", json.dumps({"action": "terminate", "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})
        )

    def state(self, name: str) -> None:
        self.write("state", name)

    def completed(self) -> list[str]:
        file = self.folder / "completed"
        return file.read_text().splitlines() if file.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.endpoint}


@pytest.fixture
def ec2(tmp_path: Path, endpoint: str) -> Iterator[Ec2]:
    """The stand-in, as a process of its own."""
    folder = tmp_path / "ec2"
    folder.mkdir()
    command = [sys.executable, str(STAND_IN), str(folder), endpoint]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            ec2 = Ec2(folder, f"http://127.0.0.1:{process.stdout.readline().strip()}")
            ec2.tell("instance-id", "i-0123456789abcdef0")
            ec2.tell("placement/region", REGION)
            ec2.state("InService")
            yield ec2
        finally:
            process.kill()
