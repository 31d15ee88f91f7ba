#!/usr/bin/env bash
# Why: drivers come from their vendors' repositories, whose keys are not on the machine and often fail (R-NEURON).
# This installs from such a repository alone:
#
#   signed_source_install NAME URL KEY-URL FINGERPRINT NOGPGCHECK "SUITE PART…" PACKAGE[=VERSION]…
#
# The key is downloaded, and trusted only if it has the pinned fingerprint and has not expired. If the signature
# can't be verified, NOGPGCHECK=yes installs from this repository anyway (`--nogpgcheck` would trust all of them)
# and says so; `no` fails. Lines that begin with "note: " reach the person who bakes and the report. The repository
# is removed afterwards: nothing on the image trusts it. Needs packages.sh.
set -euo pipefail

signed_source_install() {
  local name=$1 url=$2 key_url=$3 fingerprint=$4 nogpgcheck=$5 suite work why
  read -ra suite <<<"$6"
  shift 6
  work=$(mktemp -d)
  _signed_set_aside "$url"
  why=$(_signed_key "$key_url" "$fingerprint" "$work")
  if [ -z "$why" ]; then
    packages_repository "$name" "$url" "$work/key.asc" "${suite[@]}"
    if _signed_attempt "$work/log" "$@"; then
      echo "note: $* from $url, signed by the key $fingerprint"
    elif grep -q 'a signature is missing, wrong or expired' "$work/log"; then
      why="what is signed there is not signed by the key $fingerprint, or its signature has expired"
    else
      _signed_end "$name" "$url" "$work"
      return 1
    fi
  fi
  if [ -n "$why" ]; then
    if [ "$nogpgcheck" != yes ]; then
      echo "the signature of $url can't be verified: $why" >&2
      echo "  what to do: pin the fingerprint of its present key, or install all the same with nogpgcheck: true" >&2
      _signed_end "$name" "$url" "$work"
      return 1
    fi
    packages_repository "$name" "$url" unsigned "${suite[@]}"
    if ! _signed_attempt "$work/log" "$@"; then
      echo "  before that its signature could not be verified: $why" >&2
      _signed_end "$name" "$url" "$work"
      return 1
    fi
    echo "note: $* from $url WITHOUT a verified signature, as nogpgcheck: true says: $why"
  fi
  _signed_end "$name" "$url" "$work"
}

# Prints why the key can't be trusted; or nothing, and then WORK/key.asc holds it alone.
_signed_key() { # URL FINGERPRINT WORK
  local url=$1 fingerprint=$2 work=$3 line expired
  # Public keys need no agent, so none is started.
  local gpg=(gpg --homedir "$work/gnupg" --batch --quiet --no-autostart)
  [ -n "$fingerprint" ] || { echo "the profile pins no fingerprint" && return; }
  if ! curl --silent --show-error --fail --location --retry 3 --max-time 60 --output "$work/fetched" "$url" 2>"$work/curl"; then
    echo "its key can't be fetched from $url ($(tail -n 1 "$work/curl"))"
    return
  fi
  install --directory --mode=0700 "$work/gnupg"
  if ! "${gpg[@]}" --import "$work/fetched" 2>/dev/null; then
    echo "$url holds no OpenPGP key"
    return
  fi
  line=$("${gpg[@]}" --with-colons --list-keys "$fingerprint" 2>/dev/null | grep '^pub:') || {
    line=$("${gpg[@]}" --with-colons --list-keys | grep -m 1 '^fpr:' | cut -d : -f 10)
    echo "$url holds the key $line, not the pinned $fingerprint"
    return
  }
  case "$(cut -d : -f 2 <<<"$line")" in
    e)
      expired=$(date --utc --date="@$(cut -d : -f 7 <<<"$line")" +%F)
      echo "the key $fingerprint expired on $expired"
      ;;
    r) echo "the key $fingerprint was revoked" ;;
    # Export this key alone; the file may hold others.
    *) "${gpg[@]}" --armor --export "$fingerprint" >"$work/key.asc" ;;
  esac
}

# Runs in its own shell, which a failure ends; shows its output.
_signed_attempt() { # LOG PACKAGE…
  local log=$1 code=0
  shift
  bash -c 'source "$0" && packages_install "$@"' "${BASH_SOURCE[0]%/*}/packages.sh" "$@" >"$log" 2>&1 || code=$?
  cat "$log" >&2
  return "$code"
}

# The base AMI may list the same repository with another key or none, and apt refuses such a pair.
_signed_set_aside() { # URL
  local file
  for file in /etc/apt/sources.list.d/* /etc/yum.repos.d/*; do
    if [ -f "$file" ] && [ "$file" = "${file%.bake-aside}" ] && grep -qF "${1%/}" "$file"; then
      mv "$file" "$file.bake-aside"
    fi
  done
}

_signed_end() { # NAME URL WORK
  local file
  packages_forget "$1"
  for file in /etc/apt/sources.list.d/*.bake-aside /etc/yum.repos.d/*.bake-aside; do
    [ ! -f "$file" ] || mv "$file" "${file%.bake-aside}"
  done
  rm -rf "$3"
}
