"""What reviewers read: everything about one run, collected once and written in several formats.

`collect` makes a `Report` of a run directory, however far the run came. Each format is a pure function of it.
"""
