"""For plain pytest: what `bake.checks.runner` hands in as a plugin."""

from bake.checks.plugin import *  # noqa: F403
