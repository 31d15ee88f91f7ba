"""What libraries say while they are imported or load, and what is of no use to who reads the log."""

from __future__ import annotations

import logging

# torchao tells of kernels that this build of torch does not take, and of names that torch will retire;
# diffusers of formats that torchao gave up; transformers of image processors. None of it concerns FLUX.1-dev.
_AT_IMPORT = (
    "torchao",
    "torch.utils._pytree",
    "diffusers.quantizers.torchao.torchao_quantizer",
    "transformers.utils.import_utils",
)
# At each prompt of more than 77 tokens it warns that CLIP, which FLUX asks for a summary only, reads no
# further; the warning quotes the prompt, and prompts do not belong into logs.
_WHILE_DRAWING = ("diffusers.pipelines.flux.pipeline_flux",)


def reduce_logging() -> None:
    """Let these loggers tell of errors alone. To be called before torchao or diffusers is imported."""
    import torch

    for name in (*_AT_IMPORT, *_WHILE_DRAWING):
        logging.getLogger(name).setLevel(logging.ERROR)
    # torch writes to stderr by handlers of its own: to whoever reads the journal that is no JSON.
    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == torch.__name__]:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def disable_progress_bars() -> None:
    """Keep diffusers' and transformers' bars off stderr; what they log goes where everything else goes."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.disable_default_handler()
        library.utils.logging.enable_propagation()
