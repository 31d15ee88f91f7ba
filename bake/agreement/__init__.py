"""The user's agreement (R-AGREE): its facts, its lock file, how to show it and how to change it."""
