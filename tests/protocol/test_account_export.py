"""An account as a file (spec/account.md): what it holds, and what is refused."""

import pytest

from e2ecall.crypto.argon2 import Argon2Cost
from e2ecall.crypto.random import generate_bytes
from e2ecall.errors import ExportError, LocalProtocolError
from e2ecall.protocol import account_export
from e2ecall.protocol.account_export import (
    MAGIC,
    MAX_EXPORT,
    ExportedAccount,
    ExportedContact,
    ExportedRelay,
    generate_export,
    open_export,
    seal_export,
)
from e2ecall.secret import Secret
from relay.wire.codec import encode
from relay.wire.messages import Policy

CHEAP = Argon2Cost(memory_kib=64, iterations=1, lanes=1)
PASSPHRASE = Secret(b"correct horse")
ACCOUNT = ExportedAccount(
    2,
    "alice@relay.example",
    b"SEED" * 8,
    3,
    9,
    Policy.CONTACTS,
    (ExportedRelay("relay.example", b"K" * 32),),
    (
        ExportedContact("bob@relay.example", b"B" * 32, True, False, b"TOKEN" * 3 + b"!", None, 7),
        ExportedContact("carol@relay.example", None, False, True, None, None, 0),
        ExportedContact(
            "dave@relay.example", None, False, False, None, None, 0, b"F" * 64, False, True
        ),
    ),
    strangers_ring=False,
    audio=Policy.CONTACTS,
    video=Policy.NOBODY,
)


@pytest.fixture(scope="module")
def data():
    return generate_export(ACCOUNT, PASSPHRASE, CHEAP)


def refusal(data, passphrase=PASSPHRASE):
    with pytest.raises(ExportError) as caught:
        open_export(data, passphrase)
    return str(caught.value)


def sealed(plain):
    """Return an export with this plaintext, padded by hand."""
    salt, nonce = generate_bytes(16), generate_bytes(24)
    start = seal_export(ACCOUNT, PASSPHRASE, cost=CHEAP, salt=salt, nonce=nonce)
    start = start[: start.index(nonce) + len(nonce)]
    cipher = account_export._cipher(PASSPHRASE, salt, CHEAP)
    aad = account_export.labelled("account export", start)
    return start + cipher.encrypt(nonce, plain, aad)


def test_there_and_back(data):
    """ACCOUNT-01: what was exported is what is read, and no two exports are alike."""
    assert open_export(data, PASSPHRASE) == ACCOUNT
    assert generate_export(ACCOUNT, PASSPHRASE, CHEAP) != data


def test_it_shows_nothing(data):
    """ACCOUNT-01, S4: no name, token or key stands in the file, in a repr or in an error."""
    for text in (b"alice", b"bob", b"relay.example", b"SEED", b"TOKEN"):
        assert text not in data
    for value in (ACCOUNT, *ACCOUNT.contacts):
        assert "SEED" not in repr(value)
        assert "TOKEN" not in repr(value)


def test_length_tells_little(data):
    """The number of contacts shows only in steps of 4 096 bytes."""
    alone = ExportedAccount(
        1, ACCOUNT.address, ACCOUNT.identity_seed, 1, 1, Policy.EVERYONE, (), ()
    )
    assert len(generate_export(alone, PASSPHRASE, CHEAP)) == len(data)


def test_wrong_passphrase(data):
    """ACCOUNT-02, ACCOUNT-03, S1: another passphrase is refused with a hint; none is none."""
    for wrong in (b"correct hors", b"", b"Correct horse"):
        assert "passphrase does not open" in refusal(data, Secret(wrong))
    with pytest.raises(LocalProtocolError, match="empty"):
        generate_export(ACCOUNT, Secret(b""), CHEAP)


def test_flipped_bits(data):
    """ACCOUNT-03, S1, M1: an export with a bit of header or rest flipped is refused."""
    header = len(MAGIC) + 2 + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 2])
    places = [(at, bit) for at in range(header) for bit in range(8)]
    places += [(at, at % 8) for at in range(header, len(data), 37)]
    for at, bit in places:
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        if not _is_expensive(changed):
            assert refusal(bytes(changed))


def _is_expensive(changed):
    """Tell whether a flip asks for much work that is allowed: it would only be slow to refuse."""
    try:
        read, _ = account_export._read_header(bytes(changed))
    except ExportError:
        return False
    return read.memory_kib > 4_096


def test_truncated(data):
    """ACCOUNT-03, S1, M1: an export that was cut off anywhere, or goes on, is refused."""
    for length in (*range(120), *range(120, len(data), 97), len(data) - 1):
        assert refusal(data[:length])
    assert refusal(data + b"\0")
    assert refusal(data + bytes(MAX_EXPORT))


def test_other_files(data):
    """ACCOUNT-03: another file and another version are refused by what they are."""
    assert refusal(b"dear diary" * 100) == "this is not an exported account"
    at = len(MAGIC) + 3
    assert data[at] == 2
    assert "version" in refusal(data[:at] + b"\3" + data[at + 1 :])


def test_the_first_version():
    """ACCOUNT-08: an export of version 1 is read; it says nothing of rules and pins."""
    salt, nonce = bytes(16), bytes(24)
    header = encode([1, salt, CHEAP.memory_kib, CHEAP.iterations, CHEAP.lanes, nonce])
    start = MAGIC + len(header).to_bytes(2) + header
    bob = ["bob@relay.example", b"B" * 32, True, False, None, None, 7]
    account = [1, "alice@relay.example", b"SEED" * 8, 3, 9, 2, [], [bob]]
    cipher = account_export._cipher(PASSPHRASE, salt, CHEAP)
    aad = account_export.labelled("account export", start)
    old = start + cipher.encrypt(nonce, encode(account) + b"\x80", aad)
    assert open_export(old, PASSPHRASE) == ExportedAccount(
        2, "alice@relay.example", b"SEED" * 8, 3, 9, Policy.CONTACTS, (), (ExportedContact(*bob),)
    )


def test_expensive_header(data):
    """ACCOUNT-03, STORE-02: a header that asks for absurd work is refused before any is done."""
    huge = data.replace(b"\x40\x01\x01", b"\xce\xff\xff\xff\xff\x01\x01", 1)
    length = int.from_bytes(huge[len(MAGIC) : len(MAGIC) + 2]) + 4
    huge = MAGIC + length.to_bytes(2) + huge[len(MAGIC) + 2 :]
    assert "damaged" in refusal(huge)


@pytest.mark.parametrize(
    "plain",
    [b"", bytes(64), b"\x80" + b"\1", b"not an account\x80", b"\x80"],
    ids=["empty", "unmarked", "padded_with_one", "no_account", "nothing"],
)
def test_authentic_nonsense(plain):
    """ACCOUNT-03: what authenticates and is no account is refused as damaged."""
    assert "damaged" in refusal(sealed(plain))
