"""Commands that ask about a study, and `stop`, load none of the large libraries."""

import pytest

from tests.orchestrator.cli.test_light_commands import loaded_by

COMMANDS = ("status", "status tiny", "status tiny --json", "compare tiny", "logs tiny/full/0",
            "stop tiny")  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_that_asks_servers_loads_no_large_library(command, finished, words):
    assert loaded_by(words.split(), command.folder) == set()
