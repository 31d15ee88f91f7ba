"""The whole bake, in order."""

from __future__ import annotations

from bake.aws import Aws
from bake.planning.plan import Plan
from bake.release import Baked, Release, release, write_manifest
from bake.run import Run
from bake.steps import prefetch, provision
from bake.steps.boot_check import boot_check
from bake.steps.connect import log_in
from bake.steps.create_image import create_image, stop
from bake.steps.judge import judge
from bake.steps.launch import launch
from bake.steps.publish import publish
from bake.steps.quantize import quantize
from bake.steps.seal import seal
from bake.steps.survey import survey
from bake.steps.verify import verify
from bake.undo import Undo


def bake(plan: Plan, aws: Aws, run: Run) -> Release:
    """Turn a plan into a verified AMI and leave nothing else behind.

    Raises BakeError with what went wrong; by then everything that was created is removed again, or named.
    """
    step = run.progress.step
    with Undo(run.progress.status, run.leaks) as undo:
        with step("launch"):
            builder = launch(plan, aws, run, undo, role="builder", image=plan.launch.base.id)
        with step("connect"):
            session = log_in(builder, plan, aws, run)
        with session:
            base = survey(session, plan, run)
            with step("tools"):
                provision.upload(session, plan, run)
                provision.install_tools(session, plan, aws, run)
            download = prefetch.start(session, plan, aws, run, undo, builder)
            with step("provision"):
                provision.run_scripts(session, run, download.check)
            with step("prefetch"):
                weights = download.wait()
            checkpoint = quantize(session, plan, run)  # a step of its own where int8 is wanted
            provision.compile_for_neuron(session, plan, run)  # so is this, where Neuron draws
            with step("verify"):
                report = verify(session, plan, aws, run, builder, base.baseline)
            with step("seal"):
                seal(session, plan, run)
        with step("stop"):
            stop(aws, builder)
        with step("create image"):
            image, removal = create_image(plan, aws, run, builder, undo)
        baked = Baked(image, base, weights, checkpoint, report)
        with judge(plan, aws, run, image, undo, lambda state: write_manifest(plan, run, baked, state)):
            undo.forget(removal)  # from here on the image is kept unless it is bad
            with step("remove builder"):
                undo.now()
            with step("boot check"):
                drawing = boot_check(plan, aws, run, undo, image.id)
        with step("clean up"):
            undo.now()
    with step("publish"):
        published = publish(plan, aws, run, image)
    return release(plan, run, baked, published, drawing)
