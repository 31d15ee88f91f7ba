"""Every check has a mutation: a machine is broken in just that way, and just that check fails."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bake.checks import Check, Expectations, Report, catalogue

from . import seeded_accelerators as accelerators
from . import seeded_faults as faults
from . import seeded_updates as updates
from . import seeded_worker as worker
from .builders import Builder, red
from .faults import Batch, Change, Fault
from .seeded_secrets import AWS_KEY, HF_TOKEN, PRIVATE_KEY

BATCHES = {
    "all together": Batch(
        [
            *faults.USERS,
            *faults.SYSTEM,
            *faults.SECURITY,
            *faults.WEIGHTS,
            *faults.DISK,
            *faults.PERFORMANCE,
            *accelerators.DRIVERS,
            *worker.SERVICE,
            *worker.MODEL,
        ]
    ),
    "a second volume": accelerators.SECOND_VOLUME,
    "a root that is no disk": accelerators.NO_DISK,
    "a small file system": accelerators.SMALL,
    "an NVIDIA driver": accelerators.NVIDIA,
    "a Neuron stack": accelerators.NEURON,
    "an int8 checkpoint": accelerators.INT8,
    "compiled blocks": accelerators.BLOCKS,
    "security updates": updates.UPDATES_PENDING,
}
CHANGES = {
    **worker.START,
    **faults.READ_AHEAD_RULES,
    "a kernel without its driver": accelerators.KERNEL_WITHOUT_DRIVER,
    "the cache in memory": faults.IN_MEMORY,
    "broken weights": faults.BROKEN_WEIGHTS,
    "no accelerate": worker.NO_ACCELERATE,
}
# What no script on the machine can break.
BY_TEST = {"security.metadata_needs_a_token": "test_metadata_that_needs_no_token"}


def test_every_check_has_a_mutation() -> None:
    alone = {fault.red for batch in BATCHES.values() for fault in batch.faults}
    together = {name for change in CHANGES.values() for name in change.red}
    covered = {name.partition("[")[0] for name in alone | together | BY_TEST.keys()}
    assert covered == catalogue.ids()
    assert all(callable(globals()[name]) for name in BY_TEST.values())
    # One alone for each but this: see the reason there.
    assert together - alone - {"worker.accelerate"} == set()
    assert all(change.why for change in CHANGES.values() if len(change.red) > 1)


@contextmanager
def seeded(builder: Builder, batch: Batch, *faults: Fault) -> Iterator[Expectations]:
    """Break the machine, and mend it."""
    mends = [batch.mend]
    try:
        builder.root(batch.seed)
        for fault in faults:
            mends.insert(0, fault.mend)
            builder.root(fault.seed)
        yield batch.expected(builder.expect, *faults)
    finally:
        builder.root(*mends)


@pytest.mark.root
@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_each_fault_turns_its_check_red_and_no_other(builder: Builder, batch: Batch) -> None:
    if batch.seed:
        with seeded(builder, batch) as expect:
            assert red(builder.check_for(expect, batch.select)) == {}
    with seeded(builder, batch, *batch.faults) as expect:
        report = builder.check_for(expect, batch.select)
    reasons, by_check = red(report), {fault.red for fault in batch.faults}
    assert {name: reason for name, reason in reasons.items() if name not in by_check} == {}
    for fault in batch.faults:
        assert fault.found in reasons.get(fault.red, "passed"), fault.red
    for check in report.red:
        assert_evidence(check)
    assert_no_secret(report, builder)


@pytest.mark.root
@pytest.mark.long
@pytest.mark.parametrize(
    ("batch", "fault"),
    [
        pytest.param(batch, fault, id=f"{fault.red}-{number}")
        for batch in BATCHES.values()
        for number, fault in enumerate(batch.faults)
    ],
)
def test_a_fault_by_itself_turns_one_check_red(builder: Builder, batch: Batch, fault: Fault) -> None:
    """Above, one fault could hide behind another that it makes red as well."""
    with seeded(builder, batch, fault) as expect:
        reasons = red(builder.check_for(expect, batch.select))
    assert reasons.keys() == {fault.red}
    assert fault.found in reasons[fault.red]


@pytest.mark.root
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_turns_these_checks_red(builder: Builder, change: Change) -> None:
    builder.root(change.seed)
    try:
        expect = dataclasses.replace(builder.expect, **change.expect(builder.expect))
        report = builder.check_for(expect, change.select)
    finally:
        builder.root(change.mend)
    reasons = red(report)
    assert reasons.keys() == change.red.keys()
    for name, found in change.red.items():
        assert found in reasons[name]
    for check in report.red:
        assert_evidence(check)


@pytest.mark.root
def test_metadata_that_needs_no_token(builder: Builder) -> None:
    options = {"InstanceId": builder.instance.id, "HttpTokens": "optional"}
    builder.aws.ec2.modify_instance_metadata_options(**options)
    try:
        report = builder.check("security or system")
    finally:
        builder.aws.ec2.modify_instance_metadata_options(**options | {"HttpTokens": "required"})
    assert red(report) == {"security.metadata_needs_a_token": "expected 401, found 200"}


def assert_evidence(check: Check) -> None:
    """What a failed check says can be read from its evidence, which names what showed it."""
    if check.outcome == "not run":
        return
    failed = [one for one in check.evidence if f"expected {one.expected}, found {one.found}" in check.reason]
    assert failed, check.id
    assert all(one.expected != one.found for one in failed), check.id
    assert all(one.by.strip() and one.expected and one.found for one in check.evidence), check.id


def assert_no_secret(report: Report, builder: Builder) -> None:
    """What was found is named by its place."""
    told = "".join(check.model_dump_json() for check in report.checks)
    assert builder.expect.token
    for secret in (builder.expect.token, AWS_KEY, HF_TOKEN, PRIVATE_KEY, "letmein"):
        assert secret not in told
