"""Read profiles: YAML with line marks, variables and secrets -> one typed, frozen Profile."""

from bake.profile.loading import NO_PROFILES, Origins, load, load_with_origins, names, outline, require_folder
from bake.profile.schema import Profile
from bake.profile.variables import Variables, environment
from bake.profile.weights import FLUX

__all__ = [
    "FLUX",
    "NO_PROFILES",
    "Origins",
    "Profile",
    "Variables",
    "environment",
    "load",
    "load_with_origins",
    "names",
    "outline",
    "require_folder",
]
