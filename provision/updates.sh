#!/usr/bin/env bash
# Why: a base AMI is as old as its maker's last build. With base.updates: security the bake installs what the
# distribution has fixed since, and nothing else: Ubuntu's from the -security pockets of the base's own sources,
# Amazon Linux's by its advisories (updateinfo). Runs before everything that the bake installs, and alone: the
# download runs on the system's Python, which must not be replaced under it.
# The kernel and the drivers whose modules are built for it stay as they are, and so does what the base holds: an
# image boots the kernel that it has the module for.
# From settings.env: BAKE_HELD_PACKAGES (patterns of what stays), BAKE_UPDATES_INDEX (optional: a rehearsal's
# stand-in may have none). Prints "updated NAME OLD NEW" for each package, "-" for OLD where it is new.
set -euo pipefail
# shellcheck source=provision/lib/environment.sh
source /opt/bake/lib/environment.sh
# shellcheck source=provision/lib/packages.sh
source /opt/bake/lib/packages.sh

# The index that the updates come from is kept apart: the check of the updates reads the same one, and the
# base's own lists stay as they are.
work=/opt/bake/updates
log=$work/log
read -ra kept <<<"$BAKE_HELD_PACKAGES"
install --directory --mode=0755 "$work" "$work/lists/partial" "$work/cache/archives/partial"

# --- Ubuntu -------------------------------------------------------------------------------------------------

apt_at=(-o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o Dir::Etc::PreferencesParts=/dev/null)

# The pockets of the base's own sources, as FIELDS that indextargets knows; Debian once called its own X/updates.
apt_pockets() { # FIELDS OPTION…
  local fields=$1
  shift
  apt-get "${apt_at[@]}" indextargets "$@" --format "\$(RELEASE)|\$(ARCHITECTURE)|$fields" 'Created-By: Packages' |
    awk -F'|' -v own="$(dpkg --print-architecture)" '$1 ~ /(-security|\/updates)$/ && $2 == own' |
    cut -d'|' -f1,3- | sort -u
}

apt_index() {
  local release uri fetched
  _packages_await_lock
  # A vendor's repository may not answer: the pockets alone must.
  apt-get "${apt_at[@]}" --quiet update >"$log" 2>&1 || true
  # shellcheck disable=SC2016 # fields of apt's
  fetched=$(apt_pockets '$(REPO_URI)')
  while IFS='|' read -r release uri; do
    if ! grep -qxF "$release|$uri" <<<"$fetched" || grep -qF "Failed to fetch ${uri}dists/$release/" "$log"; then
      grep -E '^(Err|W|E):' "$log" | tail -n 20 >&2 || true
      _packages_fail "the index of the security updates can't be had: $release of $uri" \
        "is it up and validly signed, and can the subnet reach it? base.updates: none bakes without"
    fi
  done
}

# Only what lies in a pocket may replace what is installed; what it newly needs may come from anywhere. Of the
# general records the first that matches decides. Patterns of packages come before all of them.
apt_preferences() { # PATTERN…
  local release suite origin pattern
  for pattern in "$@"; do
    printf 'Package: %s\nPin: release a=now\nPin-Priority: 100\n\n' "$pattern"
    printf 'Package: %s\nPin: release *\nPin-Priority: -1\n\n' "$pattern"
  done
  # shellcheck disable=SC2016
  apt_pockets '$(SUITE)|$(ORIGIN)' | while IFS='|' read -r release suite origin; do
    # What a Release file does not say stays as it was asked for.
    case "$suite" in *'$'*) suite="$release" ;; esac
    case "$origin" in *'$'*) origin='' ;; esac
    printf 'Package: *\nPin: release %sa=%s\nPin-Priority: 990\n\n' "${origin:+o=$origin, }" "$suite"
  done
  printf 'Package: *\nPin: release a=now\nPin-Priority: 100\n\nPackage: *\nPin: release *\nPin-Priority: 50\n'
}

apt_upgrade() { # PREFERENCES OPTION…
  local preferences=$1
  shift
  apt-get "${apt_at[@]}" -o Dir::Etc::Preferences="$preferences" -o APT::Get::Always-Include-Phased-Updates=true \
    --quiet --with-new-pkgs "$@" upgrade
}

apt_pending() { # PREFERENCES OPTION…: print NAME OLD NEW of each
  if ! apt_upgrade "$@" --simulate </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    _packages_explain "$log" "a security update"
  fi
  sed -nE 's/^Inst (\S+) \[(\S+)\] \((\S+) .*/\1 \2 \3/p' "$log" | sort
}

# What can't be upgraded without removing something, but for what the base itself holds.
apt_stuck() {
  awk '/^The following packages have been kept back/ { on = 1; next } /^[^ ]/ { on = 0 } on' "$log" |
    tr -s ' ' '\n' | sed '/^$/d' | grep -vxF -f <(apt-mark showhold; echo /) || true
}

apt_install() {
  _packages_await_lock
  apt_upgrade "$work/preferences" --yes --no-install-recommends -o DPkg::Lock::Timeout="$PACKAGES_LOCK_TIMEOUT" \
    -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold
}

apt_prepare() {
  local pockets
  # shellcheck disable=SC2016
  pockets=$(apt_pockets '$(REPO_URI)' --no-release-info)
  [ -n "$pockets" ] || return 1
  apt_index <<<"$pockets"
  apt_preferences "${kept[@]}" >"$work/preferences"
  apt_preferences >"$work/preferences.all"
}

apt_list() { # every: with what stays as it is
  local stuck
  if [ "${1:-}" = every ]; then
    apt_pending "$work/preferences.all" --ignore-hold
    return
  fi
  apt_pending "$work/preferences"
  stuck=$(apt_stuck)
  if [ -n "$stuck" ]; then
    _packages_fail "security updates can't be installed without removing other packages: ${stuck//$'\n'/ }" \
      "see why with: apt-get -s dist-upgrade, on an instance of the base AMI; base.updates: none bakes without"
  fi
}

apt_installed() {
  dpkg-query --show --showformat='${db:Status-Status} ${binary:Package} ${Version}\n' | sed -n 's/^installed //p'
}

# --- Amazon Linux -------------------------------------------------------------------------------------------

rpm_options() {
  echo --assumeyes "--setopt=cachedir=$work/cache" '--setopt=*.skip_if_unavailable=True' \
    --setopt=install_weak_deps=False "${packages_release[@]}"
}

rpm_prepare() {
  local left_out
  _packages_await_lock
  "$packages_manager" "${rpm_at[@]}" --refresh makecache </dev/null >"$log" 2>&1 || true
  # Of repositories that do not answer, only a vendor's may be left out.
  left_out=$(sed -n 's/^Ignoring repositories: //p' "$log" | tr -d ',')
  case " $left_out" in
    *' amazonlinux'* | *' amzn'*)
      tail -n 20 "$log" >&2
      _packages_fail "the index of the security updates can't be had: $left_out" \
        "is it up, and can the subnet reach it? base.updates: none bakes without"
      ;;
  esac
  [ -z "$left_out" ] || echo "note: no security updates are looked for in $left_out, which does not answer"
  compgen -G "$work/cache/*/repodata/*updateinfo*" >/dev/null
}

rpm_list() { # every: with what stays as it is
  local limits=("${kept[@]/#/--exclude=}")
  [ "${1:-}" != every ] || limits=(--disableexcludes=all)
  if ! "$packages_manager" "${rpm_at[@]}" "${limits[@]}" --quiet --cacheonly updateinfo list --security --updates \
    </dev/null >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    _packages_explain "$log" "a security update"
  fi
  # ADVISORY SEVERITY/Sec. NAME-EPOCH:VERSION-RELEASE.ARCHITECTURE
  sed -nE 's/^\S+ +\S*Sec\. +(\S+)-([^-]+-[^-]+)\.[^.]+$/\1 \2/p' "$log" | sort -V |
    awk '{ newest[$1] = $2 } END { for (name in newest) print name, newest[name] }' | sort |
    while read -r name new; do echo "$name $(packages_version "$name" | tail -n 1) $new"; done
}

rpm_install() {
  _packages_await_lock
  "$packages_manager" "${rpm_at[@]}" "${kept[@]/#/--exclude=}" --security upgrade-minimal
}

rpm_installed() {
  # rpm lists keys, too, and kernels side by side.
  rpm --query --all --queryformat '%{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n' | grep -v '^gpg-pubkey '
}

# --- Both ---------------------------------------------------------------------------------------------------

system=rpm
[ "$packages_manager" != apt ] || system=apt
read -ra rpm_at < <(rpm_options)

arrows() { # NAME OLD NEW lines, in one line
  awk '{ printf "%s%s %s → %s", (NR > 1 ? ", " : ""), $1, $2, $3 }' | cut -c -1500
}

if ! "${system}_prepare"; then
  if [ "${BAKE_UPDATES_INDEX:-}" = optional ]; then
    touch "$work/no-index"
    echo "note: security updates are not known in this rehearsal: its stand-in base has no index of them"
    exit 0
  fi
  tail -n 20 "$log" >&2 2>/dev/null || true
  _packages_fail "no package source of the base AMI has security updates (a -security pocket, or advisories)" \
    "name such a source in the base AMI, or leave base.updates at none"
fi

"${system}_list" >"$work/wanted"
"${system}_list" every | comm -13 "$work/wanted" - >"$work/held"
if [ -s "$work/held" ]; then
  echo "note: held back, as the kernel, a driver or the base's own hold: $(arrows <"$work/held")"
fi
if [ ! -s "$work/wanted" ]; then
  echo "note: no security update is pending"
  exit 0
fi

names=$(cut -d' ' -f1 "$work/wanted" | paste -sd ' ')
echo "installing security updates of $names"
"${system}_installed" | sort >"$work/before"
if ! "${system}_install" </dev/null >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  _packages_explain "$log" "$names"
fi
"${system}_installed" | sort >"$work/after"
cp "$log" "$work/installed.log"

"${system}_list" >"$work/left"
if [ -s "$work/left" ]; then
  tail -n 20 "$work/installed.log" >&2
  _packages_fail "security updates are still pending after they were installed: $(arrows <"$work/left")" \
    "see what $packages_manager said above; base.updates: none bakes without"
fi

# Of a package with several versions, such as one for two architectures, each that is new.
comm -13 "$work/before" "$work/after" | while read -r name new; do
  echo "$name $(awk -v name="$name" '$1 == name { old = $2 } END { print old ? old : "-" }' "$work/before") $new"
done >"$work/updated"
sed 's/^/updated /' "$work/updated"
echo "note: $(wc -l <"$work/updated") security updates installed: $(arrows <"$work/updated")"
rm -rf "$work/cache/archives" "$log"
