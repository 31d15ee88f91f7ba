#!/usr/bin/env bash
# Why: the worker's environment is made for one minor version of Python, which not every system has. The
# system's own serves where it is that version, whole, and the system's indeed: an environment that hangs on
# conda is gone when conda is. Else the pinned one of provision/locks/python.json is unpacked: nobody's but
# the image's. Needs environment.sh. From settings.env: BAKE_PYTHON (such as 3.11), PYTHON_NAME and PYTHON_SHA256
# (the pinned archive's).
#
#   python_system [VERSION]   print the system's own Python; fail where there is none that serves
#   python_tools              make the tools' environment, of the system's or the pinned one; fail where neither can
#   python_for_worker         print what makes the worker's: the system's, or the pinned one, unpacked onto the image
#   python_fetch              fetch the pinned archive; its addresses on stdin, one a line, tried in order
set -euo pipefail

: "${TMPDIR:?read environment.sh first}"

python_archive=/opt/bake/cache/python/$PYTHON_SHA256.tar.gz

python_system() {
  local python=/usr/bin/python${1:-$BAKE_PYTHON} real
  real=$(readlink --canonicalize-existing "$python" 2>/dev/null) || return 1
  # A link may lead to conda, or to a Python that somebody built.
  case "$real" in
    /usr/local/*) return 1 ;;
    /usr/*) ;;
    *) return 1 ;;
  esac
  "$python" -I - "${1:-$BAKE_PYTHON}" 2>/dev/null <<'END' || return 1
import sys
# Systems split the standard library into packages: these parts are the ones that may be missing.
import bz2, ctypes, hashlib, lzma, sqlite3, ssl, sysconfig, zlib  # noqa
wanted = sys.argv[1]
sys.exit(wanted != "3" and "%d.%d" % sys.version_info[:2] != wanted)
END
  echo "$python"
}

python_tools() {
  local python pip
  # The place of pip is written last: without it the environment is half made.
  [ ! -e /opt/bake/tools/pip ] || return 0
  for python in "$(python_system 3)" "$(python_system)" "$(_python_unpacked /opt/bake/python)"; do
    # The locks of the tools begin with Python 3.10. Whether a system's Python can make an environment shows when
    # it does: Debian and Ubuntu ship it without the part that puts pip there, or with half of that.
    if [ -n "$python" ] && "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null &&
      pip=$(_python_environment "$python" /opt/bake/tools); then
      echo "$pip" >/opt/bake/tools/pip
      return
    fi
  done
  return 1
}

python_for_worker() {
  python_system || _python_unpacked "$WORKER_FOLDER/python/$PYTHON_NAME"
}

python_fetch() {
  local url where hosts=()
  [ ! -e "$python_archive" ] || return 0
  install --directory --mode=0755 "${python_archive%/*}"
  while read -r url; do
    where=${url#*://}
    where=${where%%/*}
    hosts+=("$where")
    # An address may be signed, and then it is a secret: curl reads it from a pipe, and does not repeat it.
    if ! printf 'url = "%s"\n' "$url" | curl --config - --silent --show-error --fail --location --retry 2 \
      --connect-timeout 20 --max-time 300 --output "$python_archive.partial"; then
      echo "$where did not give $PYTHON_NAME" >&2
    elif ! echo "$PYTHON_SHA256  $python_archive.partial" | sha256sum --check --status; then
      echo "what $where gave for $PYTHON_NAME has another sha256: $(sha256sum <"$python_archive.partial")" >&2
    else
      mv "$python_archive.partial" "$python_archive"
      echo "note: $PYTHON_NAME from $where"
      return
    fi
  done
  rm -f "$python_archive.partial"
  echo "this base AMI has no whole Python $BAKE_PYTHON of its own, and the pinned one can't be had" >&2
  echo "  what to do: let the subnet reach ${hosts[-1]:-the archive}, name a bucket in weights.mirror, or choose a" \
    "base AMI with python$BAKE_PYTHON" >&2
  return 1
}

_python_environment() { # PYTHON DIRECTORY; print what its python runs as pip
  # Out of the wheel that a Python brings for new environments: to unpack and compile it there takes 2 s.
  local wheel
  if wheel=$("$1" -I - 2>/dev/null <<'END'
import ensurepip, glob, os, sysconfig  # Fedora and Debian keep the wheel elsewhere
own = os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")
places = [sysconfig.get_config_var("WHEEL_PKG_DIR"), own, "/usr/share/python-wheels"]
print([wheel for place in places if place for wheel in sorted(glob.glob(place + "/pip-*.whl"))][0])
END
  ) && "$1" -I -m venv --clear --without-pip "$2" >/dev/null 2>&1; then
    echo "$wheel/pip"
  elif "$1" -I -m venv --clear "$2" >/dev/null 2>&1; then
    "$2/bin/python" -I -c 'import pip; print(pip.__path__[0])'
  else
    return 1
  fi
}

_python_unpacked() { # DIRECTORY
  local directory=$1
  if [ ! -x "$directory/bin/python$BAKE_PYTHON" ]; then
    [ -e "$python_archive" ] || return 1
    rm -rf "$directory" "$directory.partial"
    install --directory --mode=0755 "$directory.partial"
    tar --extract --gzip --file "$python_archive" --directory "$directory.partial" --strip-components=1 \
      --no-same-owner --no-same-permissions
    mv "$directory.partial" "$directory"
  fi
  echo "$directory/bin/python$BAKE_PYTHON"
}
