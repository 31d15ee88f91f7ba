"""A driver that must be built needs room in /boot; the bake checks that before it downloads anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bake.errors import EXIT_USAGE, DoesNotFit
from bake.steps.survey import check_boot
from tests.plans import changed

if TYPE_CHECKING:
    from tests.conftest import NewMachine

pytestmark = pytest.mark.root


def test_a_driver_that_does_not_fit_into_boot_stops_with_both_numbers(new_machine: NewMachine) -> None:
    with new_machine(hostile="small-boot") as machine:
        check_boot(machine.session, machine.plan)  # nothing is built: nothing is needed
        profile = machine.plan.profile
        nvidia = profile.nvidia.model_copy(update={"driver": "580.95.05"})
        plan = changed(machine.plan, profile.model_copy(update={"nvidia": nvidia}))
        with pytest.raises(DoesNotFit, match=r"/boot has 4 MiB free.*580\.95\.05.*60 MiB") as caught:
            check_boot(machine.session, plan)
        assert caught.value.exit_code == EXIT_USAGE
        machine.session.run("sh", "-c", "truncate -s 1M /boot/initrd*", sudo=True)
        check_boot(machine.session, plan)
