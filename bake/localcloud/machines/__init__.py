"""What an instance runs on. One backend so far: systemd-nspawn."""
