#!/usr/bin/env bash
# Greetings, warnings and environment modules that print whether or not anybody looks at a terminal.
set -euo pipefail
cat >/tmp/chatter <<'END'
printf 'Welcome to this machine!\nYou have new mail.\n{"motd": "a line that looks like data"}\n'
echo 'WARNING: this system is monitored' >&2
printf 'exit code 0'
END
cat /tmp/chatter /etc/skel/.bashrc >/tmp/bashrc
cat /tmp/bashrc >/etc/skel/.bashrc
cat /tmp/chatter | tee -a /etc/bash.bashrc /etc/bashrc /etc/profile >/etc/profile.d/00-welcome.sh
echo 'echo "loaded module cuda/12.8"' >/etc/ssh/sshrc # sshd runs it before each command
rm /tmp/chatter /tmp/bashrc
