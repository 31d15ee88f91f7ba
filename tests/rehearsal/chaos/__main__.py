"""`python -m tests.rehearsal.chaos`: see `make chaos`."""

from .suite import main

main()
