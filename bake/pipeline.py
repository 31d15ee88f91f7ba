"""The whole bake, in order."""

from __future__ import annotations

from bake import builder_lease
from bake.aws import Aws
from bake.lease import Lease
from bake.planning.plan import Plan
from bake.release import Built, Release, release
from bake.run import Run
from bake.steps import compile_model, keep_interrupted, prefetch, provision, remove_libraries
from bake.steps.attest import attested
from bake.steps.boot_check import boot_check
from bake.steps.clean_up import clean_up
from bake.steps.connect import connect_to_builder
from bake.steps.create_image import create_image
from bake.steps.judge import judge
from bake.steps.launch import Instance, launch_builder
from bake.steps.publish import publish
from bake.steps.quantize import Checkpoint, quantize
from bake.steps.record_image import record_image
from bake.steps.record_trace import record_trace
from bake.steps.seal import seal
from bake.steps.survey import Survey, survey
from bake.steps.take_over import take_over
from bake.steps.verify import verify
from bake.steps.wire_boot_check import BOOT_CHECK, wire_boot_check
from bake.undo import Undo


def bake(plan: Plan, aws: Aws, run: Run) -> Release:
    """Turn a plan into a verified AMI; after a BakeError only what it names is left. A cut run goes on."""
    with Lease(plan.lease, aws, run), Undo(run.progress.status, run.leaks, run.journal.write) as undo:
        earlier = take_over(plan, aws, run, undo)  # nothing, in a new run
        wiring = wire_boot_check(plan, aws, run, undo, earlier.wiring)
        builder = earlier.builder or launch_builder(plan, aws, run, undo)
        with keep_interrupted.kept(builder, plan, aws, run, undo):
            built = run.once("build", Built, lambda: build(builder, plan, aws, run, undo))
        image, removal = create_image(plan, aws, run, builder, undo, earlier.image)
        with attested(plan, aws, run, image):
            with judge(plan.image, aws, run, image, undo, record_image):
                undo.forget(removal)  # from here on the image is kept unless it is bad
                clean_up(undo, run, "remove builder", but=BOOT_CHECK)
                drawing = boot_check(plan, aws, run, undo, image.id, built.base, wiring)
            clean_up(undo, run)
    return release(aws, run, publish(plan.image, aws, run, image), drawing)


def build(builder: Instance, plan: Plan, aws: Aws, run: Run, undo: Undo) -> Built:
    """Install, verify and seal; nobody can log in to the builder after that."""
    wheel = provision.build_worker(plan)
    with connect_to_builder(builder, plan, aws, run) as session:
        with builder_lease.renewed(session, run, run.expires(), plan.lease):
            base = run.once("survey", Survey, lambda: survey(session, plan, run))
            provision.prepare(session, plan, aws, run, wheel)
            download = prefetch.start(session, plan, aws, run, undo, builder)
            provision.run_scripts(session, run, download.check)
            weights = download.wait()
            checkpoint = run.once("quantize", Checkpoint | None, lambda: quantize(session, plan, run))
            compile_model.compile_model(session, plan, run)
            record_trace(session, plan, run)
            remove_libraries.remove_libraries(session, plan, run)
            report = verify(session, plan, aws, run, builder, base.baseline)
        seal(session, plan, aws, run)
        return Built(base, weights, checkpoint, report)
