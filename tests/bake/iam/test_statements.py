"""The policies' statements: each only where a profile needs it, with ARNs of its account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bake import iam, profile
from bake.creation import Labels, tags
from bake.iam import Account, Subject
from tests.bake.iam import profiles
from tests.bake.iam.profiles import ENCRYPTED, FULL, PLAIN, SPOT
from worker.flux_worker.access.permissions import Identity, permissions
