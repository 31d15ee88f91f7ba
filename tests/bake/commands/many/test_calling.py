"""From the command line to several bakes: what is passed on to each, and what is refused."""

from __future__ import annotations

import click
import pytest

from bake.cli import main_group
from bake.commands.many.calling import passed_on


def words(*given: str, command: click.Command = main_group) -> tuple[str, ...]:
    context = command.make_context("bake", list(given), resilient_parsing=True)
    return passed_on(command, context, given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(("--all",), (), id="all"),
        pytest.param(("--profile", "a", "--profile=b", "--json", "--max-parallel", "3"), (), id="own"),
        pytest.param(("--rehearse", "--exclusive"), ("--rehearse", "--exclusive"), id="flags"),
        pytest.param(("--runs=--all", "--all"), ("--runs", "--all"), id="a value like an option"),
        pytest.param(("--seed", "7", "--lenient"), ("--seed", "7", "--lenient"), id="the local cloud's"),
        pytest.param(("--trust-guests",), ("--trust-guests",), id="trust"),
        pytest.param(("--env-file", "x y"), ("--env-file", "x y"), id="a place"),
        pytest.param(("--runs", "a", "--runs", "b"), ("--runs", "b"), id="the last one counts"),
    ],
)
def test_options_are_passed_on_but_for_those_about_several(
    given: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    assert words(*given) == expected


def test_an_option_that_is_new_is_passed_on_however_it_is_declared() -> None:
    @click.command()
    @click.option("--if-new", is_flag=True)
    @click.option("-t", "--tag", multiple=True)
    @click.option("--colour/--no-colour", default=True)
    def command(if_new: bool, tag: tuple[str, ...], colour: bool) -> None:
        """Do nothing."""

    given = ("--if-new", "-t", "a", "--tag=b", "--no-colour")
    assert words(*given, command=command) == ("--if-new", "--tag", "a", "--tag", "b", "--no-colour")
