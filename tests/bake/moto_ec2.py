"""moto's EC2 without machines, with what it lacks: client tokens, tags of an AMI's snapshot, references."""

from __future__ import annotations

import threading
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend, ec2_backends
from moto.ec2.utils import filter_dict_attribute_mapping

from bake.localcloud.api import attributes, image_relations, s3
from bake.localcloud.api.image_relations import ImageRelations


class TokenEc2(ImageRelations):
    """One region of the account that plans are made in."""

    # moto finds a service's URLs by the module of its backend's class.
    __module__ = EC2Backend.__module__

    def __init__(self, region_name: str, account_id: str) -> None:
        self._launching = threading.Lock()
        self._launched: dict[str, Any] = {}
        super().__init__(region_name, account_id)

    def run_instances(self, *arguments: Any, **kwargs: Any) -> Any:
        """The same client token again gives the same reservation."""
        with self._launching:
            token = kwargs.get("client_token")
            if token is None or token not in self._launched:
                self._launched[token] = super().run_instances(*arguments, **kwargs)
            return self._launched[token]

    def associate_iam_instance_profile(self, instance_id: str, **kwargs: Any) -> Any:
        """As moto's, but a repeated RunInstances finds its own association."""
        earlier = self.iam_instance_profile_associations.get(instance_id)
        return earlier or super().associate_iam_instance_profile(instance_id, **kwargs)

    def create_image(self, instance_id: str, name: str, description: str, tag_specifications: Any) -> Any:
        """An available AMI at once; its name must be free."""
        for other in self.amis.values():
            if other.name == name:
                raise EC2ClientError("InvalidAMIName.Duplicate", f"{name} is already in use by {other.id}")
        tags = {one["ResourceType"]: one["Tags"] for one in tag_specifications}
        of_image = [{"ResourceType": "image", "Tags": tags.get("image", [])}]
        image = super().create_image(instance_id, name, description, of_image)
        for tag in tags.get("snapshot", []):
            image.ebs_snapshot.add_tag(tag["Key"], tag["Value"])
        return image

    def modify_image_attribute(self, ami_id: str, **permissions: Any) -> None:
        """As moto's, which hears of permissions alone: a call without any sets `ImdsSupport`."""
        super().modify_image_attribute(ami_id=ami_id, **permissions)
        if not any(permissions.values()):
            self.amis[ami_id].imds_support = "v2.0"


def install() -> None:
    """To be called before the first request."""
    filter_dict_attribute_mapping["client-token"] = "client_token"
    ec2_backends.backend = TokenEc2
    s3.install()
    attributes.install()
    image_relations.install()
