"""CloudFormation templates of a channel's fleet: the queue and its like, and the spot instances.

Pure: what AWS, Git and the user say comes in as values; a dict goes out. `template` is the way in.
"""

from __future__ import annotations

from bake.fleet.request import Fleet, fleet_of
from bake.fleet.template import PARTS, Part, as_yaml, template

__all__ = ["PARTS", "Fleet", "Part", "as_yaml", "fleet_of", "template"]
