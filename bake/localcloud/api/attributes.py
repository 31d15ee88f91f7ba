"""Changes of instances' attributes and groups, where moto takes more or less than EC2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import Instance
from moto.ec2.responses.instances import InstanceResponse

from bake.localcloud.api import launch_checks, launched, metadata_options
from bake.localcloud.api.instances import LocalInstance, LocalInstances
from bake.localcloud.api.security_groups import groups_of

# What can be changed only of a stopped instance, and what moto may be given as a text.
_OF_STOPPED = {"instance_type", "user_data", "kernel", "ramdisk", "ebs_optimized", "sriov_net_support"}
_BOOLEANS = {"disable_api_termination", "disable_api_stop", "source_dest_check", "ebs_optimized"}
SHUTDOWN = "instance_initiated_shutdown_behavior"


def check_shutdown_behavior(value: str | None) -> None:
    """Refuse what is neither `stop` nor `terminate`; None means EC2's default, `stop`."""
    if value not in {None, "stop", "terminate"}:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ({value}) for parameter instanceInitiatedShutdownBehavior is invalid. Unknown behavior.",
        )


class Attributes:
    """The part of a region's backend that changes instances and refuses to delete what they have."""

    local_instances: ClassVar[LocalInstances]
    has_interface: Callable[[LocalInstance], bool]
    get_instance: Callable[[str], Instance]
    iam_instance_profile_associations: dict[str, Any]

    def modify_instance_attribute(self, instance_id: str, key: str, value: Any) -> Instance:
        """As moto's, which takes any value for any attribute, and in any state."""
        if key == SHUTDOWN:
            check_shutdown_behavior(str(value))
        if key in _OF_STOPPED:
            local = self.local_instances[self.get_instance(instance_id).id]
            if local.state != "stopped":
                raise EC2ClientError(
                    "IncorrectInstanceState", f"The instance '{instance_id}' is not in the 'stopped' state."
                )
            if key == "instance_type":
                self._retype(local, str(value))
        if key in _BOOLEANS:
            value = str(value).lower() == "true"
        return super().modify_instance_attribute(instance_id, key, value)  # type: ignore[misc]

    def _retype(self, local: LocalInstance, kind: str) -> None:
        """Give a stopped instance's machine what another type has; EC2ClientError where it can't have it."""
        launch_checks.check_type(kind, local.moto.architecture)
        launch_checks.check_offered(kind, local.moto.availability_zone, local.moto.region_name)
        local.retype(kind)
        local.moto.cpu_options = launched.cpus(kind, {})

    def modify_instance_metadata_options(
        self,
        instance_id: str,
        http_tokens: str | None = None,
        hop_limit: int | None = None,
        http_endpoint: str | None = None,
        dry_run: bool | None = False,
        http_protocol: str | None = None,
        metadata_tags: str | None = None,
    ) -> Any:
        """As moto's, but options that the call does not name stay; the metadata service obeys at once."""
        options = self.get_instance(instance_id).metadata_options
        asked = {"HttpTokens": http_tokens, "HttpEndpoint": http_endpoint, "HttpProtocolIpv6": http_protocol}
        asked |= {"InstanceMetadataTags": metadata_tags}
        metadata_options.changed(options, {**asked, "HttpPutResponseHopLimit": hop_limit})
        return options

    def associate_iam_instance_profile(self, instance_id: str, **kwargs: Any) -> Any:
        """As moto's, which finds it twice when RunInstances is repeated, and gives the profile another id."""
        earlier = self.iam_instance_profile_associations.get(instance_id)
        made = earlier or super().associate_iam_instance_profile(instance_id, **kwargs)  # type: ignore[misc]
        profile = made.iam_instance_profile
        made.instance.iam_instance_profile = {"Arn": profile.arn, "Id": profile.id}
        return made

    def delete_security_group(self, name: str | None = None, group_id: str | None = None) -> None:
        """As moto's, but a group that an instance has is refused until its interface is gone."""
        wanted = {group_id, name} - {None}
        for instance in self.local_instances.all():
            groups = groups_of(instance.moto) if self.has_interface(instance) else []
            if any(wanted & {group.id, group.name} for group in groups):
                raise EC2ClientError(
                    "DependencyViolation", f"resource {group_id or name} has a dependent object"
                )
        super().delete_security_group(name, group_id)  # type: ignore[misc]

    def modify_instance_security_groups(self, instance_id: str, new_group_id_list: list[str]) -> Instance:
        """As moto's, which leaves out the network card that the groups belong to.

        moto gets here with any attribute that it does not know.
        """
        if not new_group_id_list:
            raise EC2ClientError("InvalidParameterCombination", "No attributes specified.")
        instance: Instance = super().modify_instance_security_groups(instance_id, new_group_id_list)  # type: ignore[misc]
        instance.nics[0]._group_set = list(instance.security_groups)
        return instance


def install() -> None:
    """Let moto's ModifyInstanceAttribute take `InstanceInitiatedShutdownBehavior.Value`, too."""
    of_moto = InstanceResponse._attribute_value_handler

    def handle(self: Any) -> bool:
        value = self._get_param("InstanceInitiatedShutdownBehavior.Value")
        if value is None:
            return bool(of_moto(self))
        self.error_on_dryrun()
        self.ec2_backend.modify_instance_attribute(self._get_param("InstanceId"), SHUTDOWN, value)
        return True

    InstanceResponse._attribute_value_handler = handle
