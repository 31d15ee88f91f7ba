"""What goes wrong with AWS's calls, on request: planted, and struck in front of what answers the calls."""
