#!/usr/bin/env bash
# Why: a base AMI may have conda or other programs before the system's on its PATH, any locale, a strict umask, and
# a /tmp without execute permission. Scripts inherit none of that: each one reads this file first.
set -euo pipefail

umask 022
# BAKE_PATH: a test's stand-ins, before the system's own.
export PATH=${BAKE_PATH:+$BAKE_PATH:}/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin
export LANG=C.UTF-8 LC_ALL=C.UTF-8 LANGUAGE='' HOME=/root
# Don't depend on an environment of the base AMI that may go.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONUSERBASE VIRTUAL_ENV LD_LIBRARY_PATH LD_PRELOAD BASH_ENV ENV TMOUT
unset "${!CONDA_@}"
# In the bake's folder: on the root volume, and removed by the seal.
export TMPDIR=/opt/bake/tmp
install --directory --mode=1777 "$TMPDIR"
