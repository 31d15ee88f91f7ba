"""Secrets that tests leave on a machine for the checks to find."""

from __future__ import annotations

# Joined at run time, so that no scanner takes this file for a leak.
AWS_KEY = "AKIA" + "Q" * 16
HF_TOKEN = "hf_" + "x" * 34
PRIVATE_KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----"
