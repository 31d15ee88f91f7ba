#!/usr/bin/env bash
# Why: a test makes an rpm repository where rpmbuild, rpmsign and createrepo_c are: on the machine it tests.
#   rpm_repository.sh FOLDER SIGNER-HOME SHOWN-HOME KEY-FILE PAST NAME=VERSION…
# Homes are GnuPG's; PAST is a time to sign at, or empty; the key of SHOWN-HOME is put into KEY-FILE.
set -euo pipefail

folder=$1 signer=$2 shown=$3 key_file=$4 past=$5
shift 5
work=$(mktemp -d)
mkdir -p "$folder" "$work/SPECS"
for package in "$@"; do
  version=${package#*=}
  cat >"$work/SPECS/stub.spec" <<SPEC
Name: ${package%%=*}
Version: ${version%-*}
Release: ${version##*-}
Summary: A stub
License: none
BuildArch: noarch
%description
A stub.
%files
SPEC
  rpmbuild -bb --quiet --define "_topdir $work" --define "_rpmdir $folder" "$work/SPECS/stub.spec"
done
name=$(gpg --homedir "$signer" --batch --with-colons --list-keys | sed -n 's/^fpr:*\([0-9A-F]*\):$/\1/p' | head -n 1)
rpmsign --addsign --define "__gpg /usr/bin/gpg" --define "_gpg_path $signer" --define "_gpg_name $name" \
  --define "_gpg_sign_cmd_extra_args ${past:+--faked-system-time $past} --pinentry-mode loopback" \
  "$folder"/noarch/*.rpm >/dev/null
createrepo_c --quiet "$folder"
gpg --homedir "$shown" --batch --armor --export >"$folder/$key_file"
gpgconf --homedir "$signer" --kill all
gpgconf --homedir "$shown" --kill all
rm -rf "$work"
