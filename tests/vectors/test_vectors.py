"""The vectors of spec/vectors and the third-party data, as ``make vectors`` runs them."""

import os
import random
import re
import shutil
import subprocess
import sys
from itertools import groupby
from typing import get_args

import pytest

from e2ecall.protocol.messages import CallMessage
from relay.wire.messages import ClientFrame, ServerFrame
from tests.vectors import checks, mutate, third_party
from tests.vectors.harness import LAYERS, OPERATIONS, REPOSITORY, VECTORS, MismatchError, VectorFile

PATHS = sorted(VECTORS.glob("*.json"))
FILES = {path.name: VectorFile.read(path) for path in PATHS}
ALL = [vector for file in FILES.values() for vector in file.vectors]


@pytest.fixture(scope="module")
def failures():
    """Return a function that runs checks and returns what failed."""

    def run(all_checks):
        failed = []
        checks.run(all_checks, failed.append)
        return failed

    return run


@pytest.mark.parametrize("name", FILES)
def test_vectors(name, failures):
    """The implementation gives every output, and refuses every negative vector, as told."""
    assert not failures(checks.vector_checks(FILES[name]))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_generator_makes_the_files(path):
    """The files are byte for byte what the generator makes."""
    assert path.read_bytes() == checks.generated()[path.name]


def test_no_file_is_missing():
    """Every chapter that the generator knows has its file."""
    assert set(FILES) == set(checks.generated())


def test_generator_is_a_second_reading():
    """The generator loads neither program, nor the codec's library."""
    code = (
        "import spec.vectors.generate, sys; spec.vectors.generate.generate();"
        "print([name for name in sys.modules if name.split('.')[0] in"
        " {'e2ecall', 'relay', 'msgpack', 'msgspec'}])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_form():
    """Names are unique in their file; every vector has a known requirement and operation, and
    either an output or one refusal by a known layer.
    """
    assert len(ALL) >= 600
    for file in FILES.values():
        assert len(file.by_name) == len(file.vectors)
    for vector in ALL:
        data = vector.data
        assert data["requirement"] in checks.requirements(), vector.id
        assert data["operation"] in OPERATIONS, vector.id
        assert ("output" in data) != ("refusal" in data), vector.id
        if "refusal" in data:
            assert data["refusal"]["layer"] in LAYERS, vector.id
            assert set(data["refusal"]) == {"layer", "reason"}, vector.id


def test_readme_names_operations_and_reasons():
    """The description of the form names every operation, layer and reason that occurs."""
    text = (VECTORS / "README.md").read_text()
    words = {vector.data["operation"] for vector in ALL}
    for vector in ALL:
        words |= set(vector.data.get("refusal", {}).values())
    assert not {word for word in words if f"`{word}`" not in text}


# What is altered is found.


@pytest.fixture
def copied(tmp_path):
    """Return a copy of the vector files."""
    for path in PATHS:
        shutil.copy(path, tmp_path)
    return tmp_path


def _alter(path, at):
    data = bytearray(path.read_bytes())
    # A letter stays a letter and a digit a digit where it can, so that the form stays whole.
    data[at] = {ord("a"): ord("b"), ord("0"): ord("1")}.get(data[at], data[at] ^ 1)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("original", PATHS, ids=lambda path: path.stem)
def test_any_altered_byte_fails(copied, original):
    """One byte altered anywhere in a file fails the comparison of that file."""
    seeded = random.Random(original.name)
    path, size = copied / original.name, original.stat().st_size
    found = dict(checks.checks(copied))
    for at in [0, size - 1, *seeded.sample(range(size), 6)]:
        shutil.copy(original, path)
        _alter(path, at)
        with pytest.raises(MismatchError, match=f"byte {at} is not what the generator makes"):
            found[f"{path.name}: bytes"]()


@pytest.mark.parametrize("name", FILES)
def test_altered_outputs_fail(name):
    """A value altered anywhere in an output or a refusal fails against the implementation too.

    Of each vector one, by a seed; ``python -m tests.vectors.mutate`` does all of them.
    """
    seeded = random.Random(name)
    chosen = [
        (vector, seeded.choice(places))
        for vector in FILES[name].vectors
        if (places := mutate.expected_places(vector))
    ]
    survivors = [
        (vector.id, place) for vector, place in chosen if not mutate.is_found(vector, place)
    ]
    assert not survivors


def test_every_leaf_is_altered():
    """What is altered is one leaf, whatever it is, and nothing else."""
    value = {"a": ["00", "", None], "b": {"c": True, "d": 7}}
    found = [mutate.altered(value, place) for place in mutate.places(value)]
    assert found == [
        value | {"a": ["01", "", None]},
        value | {"a": ["00", "0", None]},
        value | {"a": ["00", "", "00"]},
        value | {"b": {"c": False, "d": 7}},
        value | {"b": {"c": True, "d": 8}},
    ]


# Nothing is left out.


def _labels(folder, pattern="*.py"):
    found = set()
    for path in sorted((REPOSITORY / folder).rglob(pattern)):
        text = path.read_text(encoding="utf-8")
        found |= set(re.findall(r"\b(?:labelled\w*|hash_|kdf|mac)\(\s*\"([a-z ]+)\"", text))
    return found


def test_every_derivation_has_vectors():
    """Each label under which the program hashes, signs, derives or authenticates has vectors.

    But for those with which a relay speaks to its own database and its own nodes.
    """
    generator = "".join(
        path.read_text(encoding="utf-8") for path in (VECTORS / "generator").glob("*.py")
    )
    labels = _labels("e2ecall") | _labels("relay")
    assert {"pqxdh", "ratchet step", "call key", "sealing", "device list", "box"} <= labels
    missing = {label for label in labels if f'"{label}"' not in generator}
    assert missing == {"retired username", "rate key", "rate", "bus"}


def test_every_message_has_vectors():
    """Each type of request, reply, push and call message has an encoding among the vectors."""
    for name, operation, union, kind in (
        ("call", "call_message", CallMessage, lambda fields: fields[0]),
        ("wire", "client_frame", ClientFrame.__annotations__["body"], lambda fields: fields[1][0]),
        ("wire", "server_frame", ServerFrame.__annotations__["body"], lambda fields: fields[1][0]),
    ):
        shown = {
            kind(vector.data["output"]["fields"])
            for vector in FILES[f"{name}.json"].vectors
            if vector.data["operation"] == operation and "output" in vector.data
        }
        assert shown == {one.__struct_config__.tag for one in get_args(union)}


def test_missing_and_additional_files_fail(copied, failures):
    """A folder without one of the files, or with one more, fails."""
    (copied / "sas.json").rename(copied / "another.json")
    failed = failures(check for check in checks.checks(copied) if check[0].endswith("bytes"))
    assert {line.split(":")[0] for line in failed} == {"FAILED sas.json", "FAILED another.json"}


def test_command(copied):
    """``make vectors VECTORS=DIR`` counts, closes with one line, and fails for one altered byte;
    third-party data that are missing fail too.
    """
    path = copied / "callkeys.json"
    text = path.read_text()
    at = text.index('"call_key": "') + len('"call_key": "')
    _alter(path, len(text[:at].encode()))
    done = subprocess.run(
        [sys.executable, "-m", "tests.vectors", str(copied)],
        cwd=REPOSITORY,
        env=os.environ | {"E2ECALL_VECTORS_DIR": str(copied / "nothing")},
        capture_output=True,
        text=True,
        check=False,
    )
    passed, failed = map(
        int, re.findall(r"^(\d+) passed, (\d+) failed$", done.stdout, re.MULTILINE)[-1]
    )
    assert done.stdout.endswith(f"{passed} passed, {failed} failed\n")
    assert done.returncode == 1
    assert passed >= 600
    assert f"{copied}: {passed} passed, 2 failed" in done.stdout
    assert failed - 2 > len(third_party.hashes())
    assert "FAILED callkeys.json: bytes" in done.stdout
    assert "FAILED callkeys:call_keys_video" in done.stdout


# Third-party data.


def test_third_party(vectors_dir, failures):
    """All data that third-party.md lists have the hashes of the list and give what they say."""
    found = list(third_party.checks(vectors_dir))
    assert not failures(found)
    counts = {
        kind: len(list(group))
        for kind, group in groupby(name.rsplit(" ", 1)[0] for name, _ in found)
    }
    assert counts["rfc9605 suite"] == 2
    assert sum(n for kind, n in counts.items() if kind.startswith("rfc9605 header")) == 289
    assert sum(n for kind, n in counts.items() if kind.startswith("wycheproof x25519")) == 518


def test_third_party_missing(tmp_path, failures):
    """Where data are missing the checks fail instead of being skipped."""
    failed = failures(third_party.checks(tmp_path))
    assert len(failed) >= len(third_party.hashes()) > 20
