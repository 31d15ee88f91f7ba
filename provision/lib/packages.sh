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
#   packages_holder                     print who holds a lock of the package manager; fail where nobody does
#   packages_unfinished                 print what dpkg was interrupted at; fail where that is nothing
#   packages_finish                     finish it
#
# Nothing here asks anything: there is no terminal, stdin is empty, and a package that wants an answer fails
# at once. A lock that somebody holds is waited for, PACKAGES_LOCK_TIMEOUT seconds at most (the profile's
# builder.package_wait_minutes). A failure shows the package manager's own words, then what they mean and what
# to do.
set -euo pipefail

PACKAGES_LOCK_TIMEOUT=${PACKAGES_LOCK_TIMEOUT:-1200}
# What is said to people goes here, also from within a command whose output is kept apart.
exec {packages_voice}>&2
# What is read below are messages in English.
export LC_ALL=C.UTF-8 LANGUAGE='' DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l

if command -v apt-get >/dev/null; then
  packages_manager=apt
elif command -v dnf >/dev/null; then
  packages_manager=dnf
else
  packages_manager=yum
fi

# Amazon Linux 2023 keeps to the release of its AMI, whose repository has no update. Where updates of a later one
# are installed, what is installed afterwards must fit those.
packages_release=()
if [ "${BAKE_UPDATES:-}" = security ] && [ "$packages_manager" = dnf ] && grep -qsE '^ID="?amzn' /etc/os-release; then
  packages_release=(--releasever=latest)
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
      --disableexcludes=main "${packages_release[@]}")
    # yum and dnf write NAME-VERSION; asking for older than installed is a downgrade, which install does too.
    "$packages_manager" "${options[@]}" install "${@/=/-}"
  fi
}

# Whether apt's lists have exactly this version; a line is "NAME | VERSION | SOURCE", with blanks between.
_packages_known() { # NAME VERSION
  apt-cache madison "$1" | awk -v version="$2" '$3 == version { found = 1 } END { exit !found }'
}

_packages_await_lock() {
  local waited=0 holder said=
  while holder=$(packages_holder); do
    [ "$holder" = "$said" ] || echo "waiting for $holder, who holds the package manager's lock" >&"$packages_voice"
    said=$holder
    if [ "$waited" -ge "$PACKAGES_LOCK_TIMEOUT" ]; then
      _packages_fail "the package manager is still locked after $waited s by $holder" \
        "that program must end first: bake again, or wait longer with builder.package_wait_minutes"
    fi
    sleep 1
    waited=$((waited + 1))
  done
}

# As "process PID (COMMAND LINE) of UNIT, since HH:MM UTC".
packages_holder() {
  local file pid
  if [ "$packages_manager" = apt ]; then
    # apt waits for dpkg's locks by itself, but not for the one of its lists.
    set -- /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock
  else
    set -- /var/lib/rpm/.rpm.lock /usr/lib/sysimage/rpm/.rpm.lock /run/dnf/*.lock
  fi
  for file in "$@"; do
    [ -e "$file" ] || continue
    pid=$(_packages_locker "$file") && _packages_process "$pid" && return
  done
  [ "$packages_manager" != apt ] || return 1
  # dnf's own locks are files with the number of its process, which stay where it was killed.
  for file in /var/cache/dnf/*.pid /var/lib/dnf/*.pid /run/dnf*.pid /run/yum.pid; do
    [ -s "$file" ] || continue
    pid=$(tr -dc 0-9 <"$file")
    grep -qsE 'dnf|yum|python|packagekit' "/proc/$pid/comm" && _packages_process "$pid" && return
  done
  return 1
}

# Prints the process that has a file locked. /proc/locks has the locks by inode, as hh:hh:n, and inodes of two
# disks may be equal: who holds the lock has the file open, too. Lines with "->" only wait.
_packages_locker() { # FILE
  local file=$1 pid
  while read -r pid; do
    # A lock of an open file belongs to no process (-1), or to one that has left it to its children.
    _packages_opener "$file" "$pid" || _packages_opener "$file" '[0-9]*' || continue
    return
  done < <(awk -v inode=":$(stat --dereference --format=%i "$file")" \
    '$2 ~ /^(POSIX|FLOCK|OFDLCK)$/ && $4 == "WRITE" && substr($6, 6) == inode { print $5 }' /proc/locks)
  return 1
}

_packages_opener() { # FILE PROCESS: print the first of these processes that has the file open
  local open pid
  while read -r open; do
    if [ "$open" -ef "$1" ]; then
      pid=${open#/proc/}
      echo "${pid%%/*}"
      return
    fi
  done < <(compgen -G "/proc/$2/fd/*")
  return 1
}

_packages_process() {
  local line unit age since=
  # One that has ended but was not waited for holds nothing.
  line=$(tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null) && [ -n "$line" ] || return 1
  line=${line:0:200}
  unit=$(sed -nE 's|^.*/([^/]+\.(service\|scope))$|\1|p' "/proc/$1/cgroup" 2>/dev/null | head -n 1)
  age=$(ps -o etimes= -p "$1" 2>/dev/null | tr -d ' ') && since=$(date -u -d "-${age:-0} seconds" +%H:%M)
  echo "process $1 (${line% })${unit:+ of $unit}${since:+, since $since UTC}"
}

packages_finish() {
  local left still log
  left=$(packages_unfinished) || return 0
  _packages_await_lock
  log=$(mktemp)
  # As apt itself demands before it does anything else.
  dpkg --force-confdef --force-confold --configure -a </dev/null >"$log" 2>&1 || true
  if still=$(packages_unfinished); then
    # The base AMI's own: the image has it, too, and what needs no package does not mind.
    echo "$still" >/opt/bake/unfinished-packages
    tail -n 20 "$log" >&2
    echo "note: dpkg can't finish $still, which the base AMI has half-way: what has to be installed will fail," \
      "and the image has it as the base has"
  else
    echo "note: dpkg was interrupted on this base AMI at $left: finished with dpkg --configure -a"
  fi
  rm "$log"
}

packages_unfinished() {
  local left
  [ "$packages_manager" = apt ] || return 1
  left=$(dpkg-query --show --showformat='${db:Status-Status} ${binary:Package}\n' 2>/dev/null |
    sed -nE 's/^(unpacked|half-configured|half-installed|triggers-pending|triggers-awaited) //p' | paste -sd ' ')
  # dpkg's journal of what it was about to write into its list.
  [ -n "$left" ] || left=$(compgen -G '/var/lib/dpkg/updates/[0-9]*' | paste -sd ' ')
  [ -n "$left" ] && echo "$left"
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
      "its last lines name it; is it up, and can the subnet reach it?"
  elif has 'Unable to locate package|No match for argument|Unable to find a match|has no installation candidate|Version .* was not found|No package .* available'; then
    _packages_fail "no repository of this machine has $names" \
      "look for the name or version with: apt-cache policy NAME (Ubuntu), dnf --showduplicates list NAME (Amazon Linux)"
  elif has 'Could not get lock|Failed to obtain the transaction lock'; then
    _packages_fail "the package manager is locked by $(packages_holder || echo 'a program that has ended since')" \
      "that program must end first: bake again, or wait longer with builder.package_wait_minutes"
  elif has 'dpkg was interrupted|Unmet dependencies|unmet dependencies|requires it to be reinstalled'; then
    _packages_fail "the base AMI's packages are broken: $names was not installed" \
      "choose another base AMI, or mend it there with: dpkg --configure -a && apt-get --fix-broken install"
  fi
  _packages_fail "$packages_manager could not install $names" "its last lines say why"
}

_packages_fail() {
  printf '%s\n  what to do: %s\n' "$1" "$2" >&"$packages_voice"
  exit 1
}
