"""`bake local announce`: scheduled events and target lifecycle states, as a worker's watcher reads them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from bake.errors import BakeError, UsageError
from bake.localcloud.cli import local
from bake.ssh import connect
from flux_worker.host import maintenance

pytestmark = pytest.mark.root
M = "http://169.254.169.254/latest"
PATHS = "events/maintenance/scheduled events/maintenance/history autoscaling/target-lifecycle-state"
ASK = f"""
token=$(curl -sf -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' {M}/api/token)
for path in {PATHS}; do
  curl -sf -H "X-aws-ec2-metadata-token: $token" {M}/meta-data/$path | tr -d '\\n'; echo
done
"""


def announce(*words: str) -> Any:
    """Run `bake local announce … --json`; an error that the user would see is raised."""
    result = CliRunner().invoke(local, ["announce", *words, "--json"])
    if isinstance(result.exception, BakeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_an_instance_hears_of_events_and_of_its_next_state(account: Any) -> None:
    launched = account.launch()
    try:
        account.reach(launched.id, "running")
        with connect(launched.login) as session:

            def told() -> list[str]:
                return session.run_shell(ASK).stdout.split("\n")[:3]

            assert told() == ["[]", "[]", ""]
            event = announce(launched.id, "--event", "system-reboot", "--in", "10m")["event"]
            scheduled, history, _ = told()
            [read] = maintenance.parse(scheduled)
            assert (read.id, read.code) == (event["EventId"], "system-reboot")
            assert timedelta(minutes=5) < read.begins - datetime.now(UTC) <= timedelta(minutes=10)
            assert history == "[]"
            assert announce(launched.id, "--cancel") == {"canceled": 1}
            scheduled, history, _ = told()
            assert scheduled == "[]"
            assert [one["State"] for one in json.loads(history)] == ["canceled"]
            assert announce(launched.id, "--cancel") == {"canceled": 0}
            assert announce(launched.id, "--target", "Terminated") == {"target": "Terminated"}
            assert told()[2] == "Terminated"
        with pytest.raises(UsageError, match="soon"):
            announce(launched.id, "--event", "instance-stop", "--in", "soon")
    finally:
        account.terminate(launched.id)
    account.reach(launched.id, "terminated")
    with pytest.raises(UsageError, match="is terminated"):
        announce(launched.id, "--target", "InService")


@pytest.mark.parametrize("words", [(), ("--cancel", "--target", "Terminated")])
def test_one_thing_is_announced_at_a_time(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="give one of --event, --cancel and --target"):
        announce("i-0123456789abcdef0", *words)


def test_an_instance_that_is_not_there_is_told(account: Any) -> None:
    with pytest.raises(UsageError, match="there is no instance i-0"):
        announce("i-0", "--target", "Terminated")
