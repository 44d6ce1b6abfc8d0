"""Shells complete the command line with what it prints for them."""

import subprocess

import pytest

from .conftest import run_command

BASH = """
source "$1"
COMP_WORDS=(e2ecall "$2"); COMP_CWORD=1; COMP_LINE="e2ecall $2"; COMP_POINT=${#COMP_LINE}
function_of=$(complete -p e2ecall | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function_of" e2ecall "$2" e2ecall
printf '%s\n' "${COMPREPLY[@]}"
"""
FISH = 'source $argv[1]; complete --do-complete "e2ecall $argv[2]"'


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """Give a function that writes the script of a shell into a file."""

    def written(shell):
        done = run_command("completion", shell)
        assert (done.code, done.stderr) == (0, "")
        path = tmp_path_factory.mktemp(shell) / "_e2ecall"
        path.write_text(done.stdout)
        return path

    return written


def answer(*command):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return {line.split("\t")[0].strip() for line in done.stdout.splitlines()}


@pytest.mark.system("bash")
def test_bash(script):
    """Bash completes the beginning of a command to all that begin so."""
    assert answer("bash", "-c", BASH, "bash", script("bash"), "do") == {"doctor"}
    assert {"call", "contacts", "completion"} <= answer(
        "bash", "-c", BASH, "bash", script("bash"), "c"
    )


@pytest.mark.system("fish")
def test_fish(script):
    """Fish completes the beginning of a command to all that begin so."""
    assert "doctor" in answer("fish", "--no-config", "-c", FISH, script("fish"), "do")


@pytest.mark.system("zsh")
def test_zsh(script):
    """Zsh takes the script as one of its own: for this command, without an error of syntax."""
    path = script("zsh")
    assert path.read_text().startswith("#compdef e2ecall")
    subprocess.run(["zsh", "-n", path], check=True)


def test_for_programs(script):
    """With --json the script is one object, as everything else is."""
    (event,) = run_command("completion", "fish", "--json").events
    assert event == {
        "event": "completion",
        "shell": "fish",
        "script": script("fish").read_text()[:-1],
    }


def test_unknown_shell():
    """Another shell is an error of the command line."""
    assert run_command("completion", "tcsh").code == 2
