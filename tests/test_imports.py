"""Who imports whom: the contracts of pyproject.toml, and what a fresh process really loads."""

import subprocess
import sys
from pathlib import Path

import grimp
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
MEDIA = {"aiortc", "aioice", "av", "pylibsrtp"}

IMPORT_ALL = """
import importlib, pkgutil, sys
name = sys.argv[1]
package = importlib.import_module(name)
for module in pkgutil.walk_packages(package.__path__, name + "."):
    if not module.name.endswith("__main__"):  # importing that would run the program
        importlib.import_module(module.name)
"""


def loaded_by(code, *arguments):
    """Return the top-level names in sys.modules of a fresh process that ran ``code``."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return set(process.stdout.split())


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("e2ecall", "relay", include_external_packages=True, cache_dir=None)


def test_import_contracts():
    """The layers and the exclusive importers are as pyproject.toml declares them."""
    # In a process of its own, as it switches off every logger that exists by then.
    check = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    )
    process = subprocess.run(
        [sys.executable, "-c", check], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr


def test_client_imports_only_the_wire_of_the_relay(graph):
    """No module of e2ecall imports a module of the relay other than relay.wire and those in it."""
    clients = {"e2ecall", *graph.find_descendants("e2ecall")}
    imported = set().union(*map(graph.find_modules_directly_imported_by, clients))
    relay = {name for name in imported if name == "relay" or name.startswith("relay.")}
    assert relay
    assert all(name == "relay.wire" or name.startswith("relay.wire.") for name in relay)


def test_one_relay_file_imports_nacl(graph):
    """In the relay nacl is imported by exactly one file."""
    importers = graph.find_modules_that_directly_import("nacl")
    assert {name for name in importers if name.startswith("relay.")} == {
        "relay.services.signatures"
    }


def test_relay_init_is_empty():
    """The package file of the relay is empty, so importing relay.wire loads nothing else."""
    assert (REPOSITORY / "relay" / "__init__.py").read_bytes() == b""


def test_relay_alone():
    """A process that imported all of the relay holds no client, no media and no decryption code."""
    loaded = loaded_by(IMPORT_ALL, "relay")
    assert not loaded & (MEDIA | {"e2ecall", "cryptography", "numpy"})


def test_relay_commands_load_what_they_need():
    """A command of the relay that needs no server, such as ``ticket``, loads no event loop."""
    ticket = "app(['ticket', '--turn-secret', 'x'], result_action='return_value')"
    loaded = loaded_by(f"from relay.cli.main import app; {ticket}")
    assert not loaded & {"trio", "asyncio", "structlog", "sqlite3"}


def test_wire_alone():
    """The wire format, which both sides share, loads no event loop and no cryptography."""
    loaded = loaded_by(IMPORT_ALL, "relay.wire")
    assert not loaded & (MEDIA | {"e2ecall", "cryptography", "nacl", "trio", "anyio", "asyncio"})


EMPTY_PARENT = """
import sys, types
parent = types.ModuleType("e2ecall")
parent.__path__ = ["e2ecall"]
sys.modules["e2ecall"] = parent
"""


def test_protocol_alone():
    """The protocol loads no event loop and no media library.

    The package above it re-exports the client, which does; here it is an empty one.
    """
    loaded = loaded_by(EMPTY_PARENT + IMPORT_ALL, "e2ecall.protocol")
    assert not loaded & (MEDIA | {"trio", "anyio", "asyncio", "websockets", "sqlite3"})


@pytest.mark.parametrize("module", ["e2ecall", "e2ecall.client", "e2ecall.cli.main"])
def test_client_without_a_call(module):
    """Importing the client, or its command line, loads no media or screen: only a call does."""
    assert not loaded_by(f"import {module}") & (MEDIA | {"numpy", "sounddevice", "textual"})
