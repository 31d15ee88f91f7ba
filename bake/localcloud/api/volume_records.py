"""Volumes and attachments for moto, with states and rights as EC2 tells them."""

from __future__ import annotations

from typing import Any

from moto.ec2.models.elastic_block_store import Volume, VolumeAttachment


class LocalVolume(Volume):  # type: ignore[misc]
    """A volume; `making` is its state as long as it can't be used: "creating" or "error".

    `volume_initialization_rate` is the MiB/s at which EBS was asked to fill it.
    """

    making = ""
    volume_initialization_rate: int | None = None

    @property
    def status(self) -> str:
        return self.making or str(super().status)

    @property
    def state(self) -> str:
        return self.status

    def get_filter_value(self, filter_name: str, method_name: str | None = None) -> Any:
        if filter_name == "attachment.delete-on-termination" and self.attachment:
            return self.attachment.delete_on_termination
        return super().get_filter_value(filter_name, method_name)


class LocalAttachment(VolumeAttachment):  # type: ignore[misc]
    """A volume's attachment, with what its instance says of it."""

    @property
    def delete_on_termination(self) -> bool:
        mapped = self.instance.block_device_mapping.get(self.device)
        return bool(mapped and mapped.delete_on_termination)

    @property
    def state(self) -> str:
        return str(self.status)
