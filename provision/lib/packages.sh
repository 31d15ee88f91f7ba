#!/usr/bin/env bash
# Why: apt and dnf (yum) differ here and nowhere else. Scripts read this file and then speak of packages:
#
#   packages_missing NAME…              print those that are not installed, one a line
#   packages_install NAME[=VERSION]…    install what is missing, nothing more
#   packages_version NAME               print the installed version; fail where it is not installed
#   packages_hold NAME…                 keep the installed versions through every later upgrade
#   packages_repository NAME URL KEY    add a repository; KEY is a file with its public key, or "unsigned"
#                       [SUITE PART…]   apt's suite and components
#   packages_forget NAME                remove that repository again, and its key
#
# Nothing here asks anything: there is no terminal, stdin is empty, and a package that wants an answer fails
# at once. A lock that somebody holds is waited for, PACKAGES_LOCK_TIMEOUT seconds at most. A failure shows
# the package manager's own words, then what they mean and what to do.
set -euo pipefail

PACKAGES_LOCK_TIMEOUT=${PACKAGES_LOCK_TIMEOUT:-300}
# What is said to people goes here, also from within a command whose output is kept apart.
exec {packages_voice}>&2
# What is read below are messages in English.
export LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l

if command -v apt-get >/dev/null; then
  packages_manager=apt
elif command -v dnf >/dev/null; then
  packages_manager=dnf
else
  packages_manager=yum
fi

packages_version() {
  if [ "$packages_manager" = apt ]; then
    # A package that was removed but not purged has a version, too, and is not installed.
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ] || return 1
    dpkg-query --show --showformat='${Version}\n' "$1"
  else
    # By what packages provide: a name may have become another package's.
    rpm --query --whatprovides --queryformat '%{VERSION}-%{RELEASE}\n' "$1" 2>/dev/null | grep -v 'no package'
  fi
}

packages_missing() {
  local wanted have
  for wanted in "$@"; do
    have=$(packages_version "${wanted%%=*}") || have=
    # "=2.1" asks for 2.1 or, where the release is left out, any 2.1-RELEASE.
    case "$wanted" in
      *=*) case "$have" in "${wanted#*=}" | "${wanted#*=}"-*) continue ;; esac ;;
      *) [ -z "$have" ] || continue ;;
    esac
    echo "$wanted"
  done
}

packages_install() {
  local missing log
  mapfile -t missing < <(packages_missing "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0
  echo "installing ${missing[*]}"
  log=$(mktemp)
  if ! _packages_install "${missing[@]}" </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    _packages_explain "$log" "${missing[*]}"
  fi
  mapfile -t missing < <(packages_missing "${missing[@]}")
  if [ "${#missing[@]}" -gt 0 ]; then
    tail -n 20 "$log" >&2
    _packages_fail "$packages_manager reports no error, but ${missing[*]} is not installed" \
      "see what it said above; another version may be all that the repositories have"
  fi
  rm "$log"
}

packages_hold() {
  _packages_await_lock
  if [ "$packages_manager" = apt ]; then
    apt-mark hold "$@" >/dev/null
  else
    # The versionlock plugin is not on every base; an exclude in the main file needs none.
    local file=/etc/dnf/dnf.conf held
    [ -e "$file" ] || file=/etc/yum.conf
    held=$({ sed -n 's/^exclude=//p' "$file" | tr ' ' '\n'; printf '%s\n' "$@"; } | sort -u | paste -sd ' ')
    # Under [main], which is the first section and may not be the last.
    sed -i -e '/^exclude=/d' -e "s/^\[main\]/&\nexclude=${held# }/" "$file"
  fi
}

packages_repository() {
  local name=$1 url=$2 key=$3
  shift 3
  _packages_await_lock
  if [ "$packages_manager" = apt ]; then
    local trust="trusted=yes"
    if [ "$key" != unsigned ]; then
      # apt takes armoured keys by the ending .asc and binary ones by .gpg.
      local kept=/etc/apt/keyrings/$name.gpg
      grep -q 'BEGIN PGP' "$key" && kept=/etc/apt/keyrings/$name.asc
      install -D --mode=0644 "$key" "$kept"
      trust="signed-by=$kept"
    fi
    echo "deb [$trust] $url $*" >"/etc/apt/sources.list.d/$name.list"
  else
    {
      echo "[$name]"
      echo "name=$name"
      echo "baseurl=$url"
      echo "enabled=1"
      if [ "$key" = unsigned ]; then
        echo "gpgcheck=0"
      else
        install -D --mode=0644 "$key" "/etc/pki/rpm-gpg/RPM-GPG-KEY-$name"
        echo "gpgcheck=1"
        echo "gpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-$name"
      fi
    } >"/etc/yum.repos.d/$name.repo"
  fi
}

packages_forget() {
  if [ "$packages_manager" = apt ]; then
    rm -f "/etc/apt/sources.list.d/$1.list" "/etc/apt/keyrings/$1.gpg" "/etc/apt/keyrings/$1.asc"
  else
    rm -f "/etc/yum.repos.d/$1.repo" "/etc/pki/rpm-gpg/RPM-GPG-KEY-$1"
  fi
}

_packages_install() {
  local options=()
  _packages_await_lock
  if [ "$packages_manager" = apt ]; then
    options=(--quiet=2 --yes --no-install-recommends -o DPkg::Lock::Timeout="$PACKAGES_LOCK_TIMEOUT"
      # apt would lend dpkg a terminal of its own, and who asks there waits for ever.
      -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold)
    # A repository that does not answer may be one that nobody needs: only the install decides.
    apt-get "${options[@]}" update || true
    _packages_await_lock
    local wanted exact=()
    for wanted in "$@"; do
      # apt wants the whole version; where the release is left out, any will do.
      case "$wanted" in *=*) _packages_known "${wanted%%=*}" "${wanted#*=}" || wanted+="-*" ;; esac
      exact+=("$wanted")
    done
    apt-get "${options[@]}" --allow-downgrades --allow-change-held-packages install "${exact[@]}"
  else
    # What packages_hold keeps is kept by everybody but who names it.
    options=(--assumeyes --setopt=install_weak_deps=False --setopt='*.skip_if_unavailable=True'
      --disableexcludes=main)
    # yum and dnf write NAME-VERSION; asking for older than installed is a downgrade, which install does too.
    "$packages_manager" "${options[@]}" install "${@/=/-}"
  fi
}

# Whether apt's lists have exactly this version; a line is "NAME | VERSION | SOURCE", with blanks between.
_packages_known() { # NAME VERSION
  apt-cache madison "$1" | awk -v version="$2" '$3 == version { found = 1 } END { exit !found }'
}

_packages_await_lock() {
  local waited=0 holder
  while holder=$(_packages_holder); do
    [ "$waited" -gt 0 ] || echo "waiting for $holder, who holds the package manager's lock" >&"$packages_voice"
    if [ "$waited" -ge "$PACKAGES_LOCK_TIMEOUT" ]; then
      _packages_fail "the package manager is still locked after $waited s by $holder" \
        "that program must end first; on a fresh machine it is often an unattended upgrade: bake again"
    fi
    sleep 1
    waited=$((waited + 1))
  done
}

# Prints who holds a lock of the package manager, as "process PID (COMMAND LINE)"; fails where nobody does.
_packages_holder() {
  local file pid
  if [ "$packages_manager" = apt ]; then
    # apt waits for dpkg's locks by itself, but not for the one of its lists.
    set -- /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock
  else
    set -- /var/lib/rpm/.rpm.lock /usr/lib/sysimage/rpm/.rpm.lock
  fi
  for file in "$@"; do
    [ -e "$file" ] || continue
    # /proc/locks has fcntl's locks by device and inode, as hh:hh:n; lines with "->" only wait.
    pid=$(awk -v inode=":$(stat -c %i "$file")" \
      '$2 == "POSIX" && $4 == "WRITE" && substr($6, 6) == inode { print $5; exit }' /proc/locks)
    [ -z "$pid" ] || { _packages_process "$pid" && return; }
  done
  [ "$packages_manager" != apt ] || return 1
  # dnf's own locks are files with the number of its process, which stay where it was killed.
  for file in /var/cache/dnf/*_lock.pid /var/lib/dnf/*_lock.pid /var/run/yum.pid; do
    [ -s "$file" ] || continue
    pid=$(cat "$file")
    grep -qsE 'dnf|yum|python' "/proc/$pid/comm" && _packages_process "$pid" && return
  done
  return 1
}

_packages_process() {
  local line
  line=$(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null) || return 1
  echo "process $1 (${line% })"
}

_packages_explain() { # LOG NAMES: what the package manager's words mean
  local log=$1 names=$2
  has() { grep -qE "$1" "$log"; }
  if has 'GPG check FAILED|GPG error|NO_PUBKEY|EXPKEYSIG|BADSIG|is not signed|cannot be authenticated|Public key .* not installed|not correct for this package|Couldn.t open file /etc/pki|repomd.xml GPG signature'; then
    _packages_fail "a signature is missing, wrong or expired: $names was not installed" \
      "look for the repository's present key; nothing without a valid signature is installed unasked"
  elif has 'No space left|enough free space|more space (needed )?on|needs [0-9]+ ?[KMG]?B (more space )?on'; then
    _packages_fail "the disk is full: $names was not installed" \
      "root_volume.size_gib is yours to change; see what fills it with: df -h / && du -xh / | sort -h | tail"
  elif has 'Failed to fetch|Could not (resolve|connect)|Failed to download metadata|Cannot download repomd|Curl error|Cannot prepare internal mirrorlist|Could not retrieve mirrorlist|All mirrors were tried|Status code: [45]'; then
    _packages_fail "a repository does not answer: $names was not installed" \
      "the lines above name it; is it up, and can the subnet reach it?"
  elif has 'Unable to locate package|No match for argument|Unable to find a match|has no installation candidate|Version .* was not found|No package .* available'; then
    _packages_fail "no repository of this machine has $names" \
      "look for the name or version with: apt-cache policy NAME (Ubuntu), dnf --showduplicates list NAME (Amazon Linux)"
  elif has 'Could not get lock|Failed to obtain the transaction lock'; then
    _packages_fail "the package manager is locked by $(_packages_holder || echo 'a program that has ended since')" \
      "that program must end first: bake again"
  fi
  _packages_fail "$packages_manager could not install $names" "its last lines are above"
}

_packages_fail() {
  printf '%s\n  what to do: %s\n' "$1" "$2" >&"$packages_voice"
  exit 1
}
