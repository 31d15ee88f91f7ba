#!/usr/bin/env bash
# The system's Python has another minor version. A stand-in: python3 says so of itself, as does sys.version_info in
# it, so that whoever looks for another one finds none; it is the same interpreter. An environment that it makes is
# of the true one, or its folders would have the wrong names. Programs of the system run by a path of their own, as
# on systems that keep a "platform python".
set -euo pipefail
claimed=${2#python-}
claimed=${claimed%-only}
real=$(readlink -f /usr/bin/python3)
mkdir -p /usr/libexec
mv "$real" /usr/libexec/platform-python
rm -f /usr/bin/python3 /usr/bin/python3.[0-9]* /usr/local/bin/python3*
grep -lsrE '^#! ?/usr/bin/python3' /usr/bin /usr/sbin /usr/lib/cloud-init /usr/libexec /usr/local/sbin |
  xargs --no-run-if-empty sed -i -E '1s|^#! ?/usr/bin/python3[0-9.]*|#!/usr/libexec/platform-python|'
cat >"/usr/bin/python$claimed" <<END
#!/bin/sh
case "\$1 \$2" in
  --version* | -V*) echo "Python $claimed.4"; exit ;;
  '-m venv') exec /usr/libexec/platform-python "\$@" ;;
esac
STAND_IN_PYTHON=$claimed exec /usr/libexec/platform-python "\$@"
END
chmod 0755 "/usr/bin/python$claimed"
ln -s "python$claimed" /usr/bin/python3
library=$(/usr/libexec/platform-python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
rm -f "$library/sitecustomize.py"
cat >"$library/sitecustomize.py" <<'END'
import collections, os, sys

if claimed := os.environ.pop("STAND_IN_PYTHON", None):
    kind = collections.namedtuple("version_info", "major minor micro releaselevel serial")
    sys.version_info = kind(*map(int, claimed.split(".")), 4, "final", 0)
    sys.version = f"{claimed}.4 (stand-in) {sys.version.partition('(')[0]}"
    sys.hexversion = sys.version_info.major << 24 | sys.version_info.minor << 16 | 0x4F0
END
