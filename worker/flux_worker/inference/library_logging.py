"""Silence irrelevant warnings and progress bars of torch, torchao, diffusers and transformers."""

from __future__ import annotations

import logging

# torchao warns about kernels that this build of torch lacks and about deprecated names, diffusers about
# formats that torchao dropped, transformers about image processors. None of it concerns FLUX.1-dev.
_AT_IMPORT = (
    "torchao",
    "torch.utils._pytree",
    "diffusers.quantizers.torchao.torchao_quantizer",
    "transformers.utils.import_utils",
)
# For each prompt of more than 77 tokens it warns that CLIP, from which FLUX needs only a summary, truncates
# it; the warning quotes the prompt, which must not be logged.
_WHILE_DRAWING = ("diffusers.pipelines.flux.pipeline_flux",)


def reduce_logging() -> None:
    """Let these loggers log errors only. Call it before torchao or diffusers is imported."""
    import torch

    for name in (*_AT_IMPORT, *_WHILE_DRAWING):
        logging.getLogger(name).setLevel(logging.ERROR)
    # torch has its own handlers for stderr, which do not write JSON.
    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == torch.__name__]:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def disable_progress_bars() -> None:
    """Disable diffusers' and transformers' progress bars, and pass their logs to the root logger."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.disable_default_handler()
        library.utils.logging.enable_propagation()
