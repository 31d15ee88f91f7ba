"""EC2 instances: key pairs and user data for their launch, and how to find and terminate them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bake import redaction
from bake.aws import Aws, ClientError
from bake.creation import APPEARS_WITHIN, unless_absent
from bake.errors import BakeError
from bake.retries import ABSENT, error_code

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

USER_DATA_LIMIT = 16 * 1024
# Where a worker finds its queue, bucket and event bus; a launch writes it.
# Seconds that an instance may take to terminate and to release its security group.
ENDS = 900
# Codes of a deletion that mean "not yet": what used the thing has just ended.
USED = frozenset({"DependencyViolation", "VolumeInUse", "InvalidNetworkInterface.InUse"})


@dataclass(frozen=True)
class KeyPair:
    """A key pair in OpenSSH's format: ed25519, or ECDSA for machines in FIPS mode, which refuse ed25519."""

    private: str
    public: str

    @classmethod
    def generate(cls, kind: Literal["ed25519", "ecdsa"] = "ed25519") -> KeyPair:
        """Generate a new one, and redact its private key from all output."""
        key = Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
        pair = cls.of(key)
        redaction.register(pair.private)
        return pair

    @classmethod
    def of(cls, key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> KeyPair:
        """Write a key in OpenSSH's format."""
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        return cls(private.decode(), public.decode())

    @classmethod
    def of_each_kind(cls) -> tuple[KeyPair, KeyPair]:
        """One of each kind: a machine accepts at least one of them."""
        return cls.generate("ed25519"), cls.generate("ecdsa")

    @property
    def kind(self) -> str:
        """Its kind, as OpenSSH and cloud-init call it."""
        return "ed25519" if self.public.startswith("ssh-ed25519") else "ecdsa"


def user_data(
    host_keys: Sequence[KeyPair],
    files: Mapping[str, str],
    authorized: Sequence[str] = (),
    at_boot: Sequence[str] = (),
) -> str:
    """cloud-config that installs the run's SSH host keys and writes `files` (R-USERDATA: under 16 KB).

    `authorized`: public keys that let the base's own user in, beside the launch's key pair. `at_boot`: a
    command that runs early in each boot.
    """
    config = {
        "ssh_deletekeys": True,
        "ssh_keys": {
            name: text
            for key in host_keys
            for name, text in ((f"{key.kind}_private", key.private), (f"{key.kind}_public", key.public))
        },
        **({"ssh_authorized_keys": list(authorized)} if authorized else {}),
        **({"bootcmd": [list(at_boot)]} if at_boot else {}),
        "write_files": [
            {"path": path, "content": content, "permissions": "0644"} for path, content in files.items()
        ],
    }
    text = f"#cloud-config\n{yaml.safe_dump(config)}"
    if len(text.encode()) > USER_DATA_LIMIT:
        raise BakeError(f"the user data has {len(text.encode()):,} bytes; EC2 takes {USER_DATA_LIMIT:,}")
    return text


def describe(aws: Aws, instance_id: str) -> InstanceTypeDef | None:
    """DescribeInstances for one instance; None if EC2 does not know it, unless the id is new."""
    answer = unless_absent(lambda: aws.ec2.describe_instances(InstanceIds=[instance_id]))
    reservations = answer["Reservations"] if answer else []
    return reservations[0]["Instances"][0] if reservations else None


def is_interrupted(facts: InstanceTypeDef | None) -> bool:
    """Whether EC2 has stopped a spot instance, or is about to: only EC2 starts it again."""
    stops = facts is not None and facts["State"]["Name"] in ("stopping", "stopped")
    return stops and (facts or {}).get("StateReason", {}).get("Code") == "Server.SpotInstanceShutdown"


def terminate(aws: Aws, instance_id: str) -> None:
    """Terminate an instance and wait until it is gone, and its disk with it."""
    if unless_absent(lambda: aws.ec2.terminate_instances(InstanceIds=[instance_id])) is None:
        return  # an old id: gone; for a fresh one the call was sent again

    def gone() -> bool | None:
        facts = describe(aws, instance_id)
        return True if facts is None or facts["State"]["Name"] == "terminated" else None

    aws.wait(f"the end of {instance_id}", gone, timeout=ENDS)


def delete_group(aws: Aws, group: str) -> None:
    """Delete a security group once its instance no longer uses it."""
    once_free(aws, group, lambda: aws.ec2.delete_security_group(GroupId=group))


def once_free(aws: Aws, what: str, delete: Callable[[], object]) -> None:
    """Delete something as soon as nothing uses it any more; it may be gone already."""

    def gone() -> bool | None:
        try:
            delete()
        except ClientError as error:
            if error_code(error) in USED:
                return None
            if not ABSENT.search(error_code(error)):
                raise
        return True

    aws.wait(f"the end of {what}", gone, timeout=ENDS)


def cancel_spot_requests(aws: Aws, run: str, name: str) -> None:
    """Cancel the spot request of an instance of this name, and wait until there is one: it appears late."""
    filters: Any = [{"Name": "tag:bake:run", "Values": [run]}, {"Name": "tag:Name", "Values": [name]}]
    with aws.tally.waiting(f"the spot request of {name}", APPEARS_WITHIN) as wait:
        while True:
            found = aws.ec2.describe_spot_instance_requests(Filters=filters)["SpotInstanceRequests"]
            if found or wait.seconds > APPEARS_WITHIN:
                break
            wait.pause(1)
    live = {"open", "active", "disabled"}
    if requests := [one["SpotInstanceRequestId"] for one in found if one["State"] in live]:
        aws.fresh.add(*requests)
        aws.ec2.cancel_spot_instance_requests(SpotInstanceRequestIds=requests)


def terminate_by_hand(aws: Aws, run: str, instance_id: str | None, *, spot: bool) -> str:
    """The commands that cancel the spot request and terminate the instance, found by id or by tag."""

    def listed(operation: str, query: str) -> str:
        filters = ("--filters", f"Name=tag:bake:run,Values={run}")
        return f"$({aws.command('ec2', operation, *filters, '--query', query, '--output', 'text')})"

    query = "Reservations[].Instances[].InstanceId"
    found = instance_id or listed("describe-instances", query)
    lines = [f"{aws.command('ec2', 'terminate-instances', '--instance-ids')} {found}"]
    if spot:
        requests = listed("describe-spot-instance-requests", "SpotInstanceRequests[].SpotInstanceRequestId")
        cancel = aws.command("ec2", "cancel-spot-instance-requests", "--spot-instance-request-ids")
        lines.insert(0, f"{cancel} {requests}")
    return " && ".join(lines)
