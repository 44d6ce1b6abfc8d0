"""The project frame: the lock, the Makefile's first words, the package, and the committed text."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
# SHA-256 of the text as the Apache Software Foundation publishes it, without outer blank lines.
APACHE_2 = "283ea6cc2997a1a70da0049e09adf9317bb60ca1b51279b65196b83a69e1996b"
IGNORED = {".git", ".venv", "build", "dist", "__pycache__", "e2ecall.egg-info"}


def committed_files():
    """Return what git tracks or would track; without git, all but what is made by tools."""
    git = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "-co", "--exclude-standard"]
    try:
        listed = subprocess.run(git, capture_output=True, text=True, check=True).stdout
        names = [name for name in listed.split("\0") if name]
        return [path for name in names if (path := REPOSITORY / name).is_file()]
    except (OSError, subprocess.CalledProcessError):
        return [
            path
            for path in REPOSITORY.rglob("*")
            if path.is_file()
            and not any(
                part in IGNORED or part.endswith("_cache")
                for part in path.relative_to(REPOSITORY).parts
            )
        ]


def findings(pattern, folders=None):
    """Return ``file:line: match`` for every match in the committed text files but this one."""
    found = []
    for path in committed_files():
        name = path.relative_to(REPOSITORY)
        if path == Path(__file__) or (folders and name.parts[0] not in folders):
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        matches = ((n, pattern.search(line)) for n, line in enumerate(lines, 1))
        found += [f"{name}:{n}: {match[0]}" for n, match in matches if match]
    return found


# The committed text.


def test_no_registry_host():
    """No committed file names the host of a package registry."""
    hosts = r"pypi\.org|pythonhosted\.org|registry\.npmjs|crates\.io|proxy\.golang|conda\.anaconda"
    assert not findings(re.compile(hosts, re.IGNORECASE))


def test_no_path_of_a_machine():
    """No committed file names a home folder, or another absolute path of somebody's machine."""
    paths = re.compile(r"(?<![\w.~$)}/*-])/(?:root|work|home/\w|Users/\w|opt/\w)[\w./-]*")
    assert not findings(paths)


def test_no_unfinished_words():
    """The product announces nothing unfinished."""
    words = r"\b(?:TODO|FIXME|XXX|HACK|for now|not implemented|NotImplementedError)\b"
    assert not findings(re.compile(words), folders={"e2ecall", "relay", "spec", ".ci"})


def test_text_is_clean():
    """No committed line ends in white space, and only the Makefile is indented with tabs."""
    bad = re.compile(r"[ \t]+$|^ *\t")
    assert not [line for line in findings(bad) if not line.startswith(("Makefile", "LICENSE"))]


def test_licence_is_the_apache_licence():
    """LICENSE is the unchanged text of the Apache License 2.0."""
    text = (REPOSITORY / "LICENSE").read_bytes().strip()
    assert hashlib.sha256(text).hexdigest() == APACHE_2


# The lock.


@pytest.fixture(scope="module")
def lock():
    """Return requirement by canonical name, and its number of hashes."""
    text = (REPOSITORY / "requirements.lock").read_text().replace("\\\n", " ")
    locked = {}
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith(("#", "--only-binary :all:")):
            requirement, *hashes = line.split(" --hash=")
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64} *", entry) for entry in hashes)
            parsed = Requirement(requirement)
            locked[canonicalize_name(parsed.name)] = parsed, len(hashes)
    return locked


def test_everything_locked_is_pinned_and_hashed(lock):
    """Each line of the lock is one exact version with at least one hash, and no address."""
    for requirement, hashes in lock.values():
        assert re.fullmatch(r"==[^*,]+", str(requirement.specifier)), requirement
        assert requirement.url is None
        assert hashes


def test_lock_covers_every_platform(lock):
    """Compiled packages have the hashes of all platforms' wheels, not of one machine's."""
    for name in ("av", "cffi", "cryptography", "msgpack", "msgspec", "numpy", "pynacl"):
        assert lock[name][1] >= 10, name


def test_lock_satisfies_the_project(lock):
    """All dependencies, the test extra and the build backend are locked in versions that fit."""
    project = PROJECT["project"]
    wanted = [
        *PROJECT["build-system"]["requires"],
        *project["dependencies"],
        *project["optional-dependencies"]["test"],
    ]
    for requirement in map(Requirement, wanted):
        locked = str(lock[canonicalize_name(requirement.name)][0].specifier).removeprefix("==")
        assert requirement.specifier.contains(locked), requirement


def test_only_wheels_are_installed():
    """The lock forbids building from source, which would fetch build tools that nothing pins."""
    assert (REPOSITORY / "requirements.lock").read_text().startswith("--only-binary :all:\n")


# The Makefile.


@pytest.fixture
def make_setup(tmp_path, require_program):
    """Return a function that runs ``make setup`` with a Python of which one thing is true."""
    make = require_program("make")

    def run(probe):
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{probe}'\n")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        return subprocess.run(
            [make, "setup", f"VENV={tmp_path / 'venv'}", f"PYTHON={python}"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            env={name: value for name, value in os.environ.items() if "MAKE" not in name},
        )

    return run


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (3, "error: no Python 3.11 to 3.14"),
        (4, "lacks the modules venv and ensurepip"),
        (127, "error: no Python 3.11 to 3.14"),
    ],
    ids=["old_version", "without_ensurepip", "empty_shim"],
)
def test_make_says_what_is_missing(make_setup, tmp_path, status, sentence):
    """With a Python that cannot serve, make says so, names the apt line and makes nothing."""
    made = make_setup(f"raise SystemExit({status})")
    assert made.returncode != 0
    assert sentence in made.stderr
    assert "apt-get install -y git make python3-venv" in made.stderr
    assert "Traceback" not in made.stderr
    assert not (tmp_path / "venv").exists()


def test_make_offers_no_empty_target(require_program):
    """Each target of the Makefile does something."""
    database = subprocess.run(
        [require_program("make"), "-npq", "-f", "Makefile"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    targets = set(re.search(r"^\.PHONY: (.*)$", database, re.MULTILINE)[1].split())
    assert {"setup", "demo", "test", "lint"} <= targets
    for target in targets - {"setup"}:  # setup is its prerequisite
        rule = re.search(rf"^{target}:.*\n(?:#.*\n)*(\t.+)?", database, re.MULTILINE)
        assert rule[1], target


# The package.


def test_wheel_is_typed_and_complete(tmp_path):
    """The wheel holds every module of both packages and the marker of inline types."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    for name in ("e2ecall", "relay"):
        shutil.copytree(
            REPOSITORY / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps",
         "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)],
        capture_output=True,
        check=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    modules = {
        path.relative_to(source).as_posix()
        for name in ("e2ecall", "relay")
        for path in (source / name).rglob("*.py")
    }
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert modules | {"e2ecall/py.typed"} <= packed
    top = {name.partition("/")[0] for name in packed}
    assert {name for name in top if not name.endswith(".dist-info")} == {"e2ecall", "relay"}
