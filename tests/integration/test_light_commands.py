"""Commands that look at a study, and stop it, load none of the large libraries."""

import pytest

from tests.light import heavy_modules


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("status", "tiny", "--json"),
        ("compare", "tiny"),
        ("logs", "tiny/full/0"),
        ("stop", "tiny"),
    ],
    ids=" ".join,
)
def test_a_command_loads_no_large_library(command, finished, arguments):
    home = ["--home", str(command.home)]
    assert heavy_modules([*arguments, *home], command.folder, command.environment) == []
