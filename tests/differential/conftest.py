"""The same graphs with the same parameters through a stock scheduler and through Mainstay: people see the same.

A test has a function of one side, which does what a person does with a Client and gives what they see. `both` runs it on
both sides at the same time, fails if they differ, and gives what they saw; the test then says what that is.
"""

import contextlib
import pathlib
import re
import sys

import pytest

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(pathlib.Path(__file__).parent), str(TESTS), str(TESTS / "modules")]

from harness import pytest_sessionstart  # noqa: E402, F401
from pair import WORKERS, at_once, clients, in_turn, pair  # noqa: E402


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """Both sides, for all tests that leave them as they found them."""
    with pair(tmp_path_factory.mktemp("shared"), WORKERS) as sides:
        yield sides


@pytest.fixture
def sides(shared):
    with clients(shared):
        yield shared


@pytest.fixture
def both(sides):
    """Runs a function of one side on both, and gives what both saw."""
    return comparing(sides)


@pytest.fixture
def both_in_turn(both):
    """For dataframes: equal ones are the same object in a process, so both sides at once would mix up their futures."""
    return lambda function: both(function, run=in_turn)


@pytest.fixture
def own(tmp_path):
    """Makes both sides anew, for a test that loses workers or adds some."""
    with contextlib.ExitStack() as stack:

        def make(**workers):
            sides = stack.enter_context(pair(tmp_path, workers))
            return comparing(sides)

        yield make


def comparing(sides):
    def both(function, run=at_once):
        stock, ours = run(sides, function)
        assert ours == stock, "Mainstay is not as the stock scheduler"
        return stock

    both.sides = sides
    return both


@pytest.fixture
def label(request):
    """A name of the test for notes and keys."""
    module = request.module.__name__.removeprefix("test_")
    return re.sub(r"\W+", "-", f"{module}-{request.node.name.removeprefix('test_')}").strip("-")
