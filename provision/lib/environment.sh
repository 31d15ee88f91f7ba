#!/usr/bin/env bash
# Why: a base AMI may have conda, other Pythons or programs of its own before the system's, speak any language,
# keep new files to their owner, and let nothing be executed below /tmp. Nothing of that is inherited. Every
# script reads this first.
set -euo pipefail

umask 022
# BAKE_PATH: a test's stand-ins, before the system's own.
export PATH=${BAKE_PATH:+$BAKE_PATH:}/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
export LANG=C.UTF-8 LC_ALL=C.UTF-8 LANGUAGE='' HOME=/root
# What runs must not hang on an environment of the base's that nobody promised to keep.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE VIRTUAL_ENV LD_LIBRARY_PATH LD_PRELOAD BASH_ENV ENV TMOUT
unset "${!CONDA_@}"
# Beside the tools: on the root volume, and gone with them when the image is sealed.
export TMPDIR=/opt/bake/tmp
install --directory --mode=1777 "$TMPDIR"
