"""AMIs: the bases, how they are built, and where images are kept."""
