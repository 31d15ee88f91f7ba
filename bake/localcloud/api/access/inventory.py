"""What the account has, as far as policies are evaluated by it: tags, roles and keys."""

from __future__ import annotations

import json
from typing import Any, Protocol

from bake.localcloud.settings import ACCOUNT

Tags = dict[str, str]
_EBS_ALIAS = "alias/aws/ebs"


class Inventory(Protocol):
    """The account's resources, asked when a call comes in; what is not there has no tags."""

    account: str

    def ec2_name(self, region: str, kind: str, name: str) -> str:
        """What an ARN calls a resource: a security group by its id, a key pair by its name."""
        ...

    def ec2_tags(self, region: str, kind: str, name: str) -> Tags:
        """The tags of an EC2 resource, by what its ARN ends in, or what a call names it by."""
        ...

    def group_tags(self, region: str, name: str) -> Tags:
        """The tags of a group of schedules."""
        ...

    def parameter_tags(self, region: str, name: str) -> Tags:
        """The tags of an SSM parameter, by its name as its ARN has it, without the slash."""
        ...

    def role_of_profile(self, profile: str) -> str | None:
        """The ARN of the role in an instance profile, given by name or ARN; None if there is none."""
        ...

    def auto_scaling_group(self, region: str, name: str) -> str:
        """The ARN of an Auto Scaling group."""
        ...

    def own_key(self, region: str, name: str) -> str | None:
        """The ARN of a KMS key of the account's own, by anything that names it; None for aws/ebs."""
        ...

    def secret(self, region: str, name: str) -> tuple[str, Tags]:
        """The ARN of a secret, by its name or ARN, and its tags."""
        ...

    def role(self, name: str) -> str:
        """The ARN of a role, with its path."""
        ...

    def has_bucket(self, name: str) -> bool:
        """Whether there is such a bucket."""
        ...

    def policies_of(self, arn: str) -> list[str]:
        """The policies of a resource itself: of queues, of buckets with their objects, and of KMS keys."""
        ...

    def disk_key(self, region: str, name: str) -> str | None:
        """The own key of the disk of an image, a snapshot, an instance or a volume; None if it has none."""
        ...


class MotoInventory:
    """The account in moto."""

    account = ACCOUNT

    def ec2_name(self, region: str, kind: str, name: str) -> str:
        if name == "*":
            return name
        ec2 = _ec2(region)
        if kind == "security-group" and not name.startswith("sg-"):
            found = ec2.get_security_group_by_name_or_id(name)
            return str(found.id) if found else name
        if kind == "key-pair" and name.startswith("key-"):
            return next((pair.key_name for pair in list(ec2.key_pairs.values()) if pair.id == name), name)
        if kind == "launch-template" and not name.startswith("lt-"):
            return str(ec2.launch_template_name_to_ids.get(name, name))
        return name

    def ec2_tags(self, region: str, kind: str, name: str) -> Tags:
        ec2, identity = _ec2(region), self.ec2_name(region, kind, name)
        if kind == "key-pair" and identity in ec2.key_pairs:
            identity = ec2.key_pairs[identity].id
        return dict(ec2.tags.get(identity, {}))

    def group_tags(self, region: str, name: str) -> Tags:
        from moto.scheduler.models import scheduler_backends

        groups = scheduler_backends[ACCOUNT][region].schedule_groups
        arn = groups[name].arn if name in groups else ""
        listed = scheduler_backends[ACCOUNT][region].tagger.list_tags_for_resource(arn)["Tags"]
        return {tag["Key"]: tag["Value"] for tag in listed}

    def parameter_tags(self, region: str, name: str) -> Tags:
        from moto.ssm.models import ssm_backends

        tagged = ssm_backends[ACCOUNT][region]._resource_tags.get("Parameter", {})
        return dict(tagged.get(f"/{name}") or tagged.get(name) or {})

    def role_of_profile(self, profile: str) -> str | None:
        from moto.iam.models import iam_backends

        profiles = list(iam_backends[ACCOUNT]["aws"].get_instance_profiles())
        roles: list[Any] = next((one.roles for one in profiles if profile in {one.name, one.arn}), [])
        return str(roles[0].arn) if roles else None

    def auto_scaling_group(self, region: str, name: str) -> str:
        from moto.autoscaling.models import autoscaling_backends

        group = autoscaling_backends[ACCOUNT][region].autoscaling_groups.get(name)
        absent = f"arn:aws:autoscaling:{region}:{ACCOUNT}:autoScalingGroup:*:autoScalingGroupName/{name}"
        return str(group.arn) if group else absent

    def own_key(self, region: str, name: str) -> str | None:
        kms = _kms(region)
        if name.endswith(_EBS_ALIAS):
            return None
        try:
            key = kms.any_id_to_key_id(name)
        except AttributeError:  # moto's answer to an unknown alias
            key = name
        if key not in kms.keys:
            return f"arn:aws:kms:{region}:{ACCOUNT}:key/{key}"
        if any(alias.alias_name == _EBS_ALIAS for alias in kms.list_aliases(key)):
            return None
        return str(kms.keys[key].arn)

    def secret(self, region: str, name: str) -> tuple[str, Tags]:
        from moto.secretsmanager.models import secretsmanager_backends

        for secret in list(secretsmanager_backends[ACCOUNT][region].secrets.values()):
            if name in {secret.name, secret.arn, secret.arn.rpartition("-")[0]}:
                return secret.arn, {tag["Key"]: tag["Value"] for tag in secret.tags or []}
        return name if name.startswith(
            "arn:"
        ) else f"arn:aws:secretsmanager:{region}:{ACCOUNT}:secret:{name}", {}

    def role(self, name: str) -> str:
        from moto.iam.models import iam_backends

        roles = list(iam_backends[ACCOUNT]["aws"].get_roles())
        return next(
            (str(one.arn) for one in roles if one.name == name), f"arn:aws:iam::{ACCOUNT}:role/{name}"
        )

    def has_bucket(self, name: str) -> bool:
        from moto.s3.models import s3_backends

        return name in s3_backends[ACCOUNT]["aws"].buckets

    def policies_of(self, arn: str) -> list[str]:
        from moto.s3.models import s3_backends
        from moto.sqs.models import sqs_backends

        _, _, service, region, _, *rest = [*arn.split(":", 5), "", "", "", "", ""]
        found: Any = None
        if service == "sqs" and region:
            found = getattr(sqs_backends[ACCOUNT][region].queues.get(rest[0]), "_policy_json", None)
        elif service == "kms":
            found = getattr(_kms(region).keys.get(rest[0].removeprefix("key/")), "policy", None)
        elif service == "s3":
            found = getattr(
                s3_backends[ACCOUNT]["aws"].buckets.get(rest[0].partition("/")[0]), "policy", None
            )
        if not found:
            return []
        if isinstance(found, dict):
            found = json.dumps(found)
        return [found.decode() if isinstance(found, bytes) else str(found)]

    def disk_key(self, region: str, name: str) -> str | None:
        ec2 = _ec2(region)
        disk: Any = ec2.snapshots.get(name) or ec2.volumes.get(name)
        if name in ec2.amis:
            disk = getattr(ec2.amis[name], "ebs_snapshot", None)
        elif name.startswith("i-") and (instance := ec2.get_instance_by_id(name)):
            root = instance.block_device_mapping.get(instance.root_device_name)
            disk = ec2.volumes.get(root.volume_id) if root else None
        key = getattr(disk, "kms_key_id", None)
        return self.own_key(region, str(key)) if key and disk.encrypted else None


def _ec2(region: str) -> Any:
    from moto.ec2.models import ec2_backends

    return ec2_backends[ACCOUNT][region]


def _kms(region: str) -> Any:
    from moto.kms.models import kms_backends

    return kms_backends[ACCOUNT][region]
