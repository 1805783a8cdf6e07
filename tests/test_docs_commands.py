"""Every command that README and docs/ show exists, and is run or says why not.

`scripts/check_docs.sh` runs them; here is what takes no time.
"""

import functools
import re

import pytest

from scripts.check_docs import NOT_RUN, REPOSITORY, commands
from tests.commands import run

COMMANDS = commands()
NOT_RUN_HERE = [command for command in COMMANDS if command.reason() is not None]
OF_XTOKEN = [command for command in NOT_RUN_HERE if command.words[0] == "xtoken"]
OF_SCRIPTS = [command for command in COMMANDS if re.search(r"scripts/\w+\.py", command.text)]


def options_of(command):
    return re.findall(r"(?<![\w-])--[a-z][\w.-]*", command.text)


@functools.cache
def help_of(name):
    return run(name, "--help").out


def test_commands_are_found():
    texts = {command.text for command in COMMANDS}
    assert "xtoken audit --student asset:llama3 --teacher asset:qwen3" in texts  # of a block
    assert "xtoken report runs/quickstart" in texts  # between backquotes
    assert any(text.startswith("xtoken init --student REF") for text in texts)  # indented
    assert any("--optim.steps 4 " in text for text in texts)  # behind a prompt
    assert sum(command.reason() is None for command in COMMANDS) > 15


@pytest.mark.parametrize("start", NOT_RUN)
def test_what_is_not_run_is_there(start):
    assert any(start in command.text for command in COMMANDS)


@pytest.mark.parametrize("command", OF_XTOKEN, ids=str)
def test_forms_have_the_options_of_their_command(command):
    told = help_of(command.words[1])
    assert told.startswith("usage: ")
    assert not [option for option in options_of(command) if not re.search(rf"{option}\b", told)]


@pytest.mark.parametrize("command", OF_SCRIPTS, ids=str)
def test_scripts_have_the_options_that_are_shown(command):
    path = re.search(r"scripts/\w+\.py", command.text)[0]
    source = (REPOSITORY / path).read_text(encoding="utf-8")
    assert not [option for option in options_of(command) if f'"{option}"' not in source]
