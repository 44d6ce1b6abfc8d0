"""What `serve --capture` keeps (spec/wire.md, Capture)."""

import socket
import sqlite3
import time

import pytest

from relay.wire.codec import encode
from relay.wire.messages import Done

pytestmark = pytest.mark.trio


def records(path):
    """Split a capture file; every byte of it belongs to a record."""
    data, found = path.read_bytes(), []
    while data:
        length = int.from_bytes(data[:4])
        found.append(data[4 : 4 + length])
        assert len(found[-1]) == length
        data = data[4 + length :]
    return found


async def test_signalling(start_relay, tmp_path, speak, username):
    """Every message is kept with time, connection and direction; the mailbox is in the database."""
    relay = start_relay("--capture", tmp_path / "kept", "--data-dir", tmp_path / "data")
    letter = speak.letter(username, b"sealed envelope")
    async with speak.registered(relay.url, username) as (client, _):
        assert await client.request(letter) == Done()
        hello = client.hello
        await client.push()
        await client.socket.send(b"garbage")
    relay.terminate()
    kept = records(tmp_path / "kept" / "signalling.bin")
    assert {int.from_bytes(record[8:12]) for record in kept} == {1}
    assert all(abs(int.from_bytes(record[:8]) / 1e6 - time.time()) < 60 for record in kept)
    sent = [record[13:] for record in kept if record[12] == 1]
    received = [record[13:] for record in kept if record[12] == 0]
    assert len(received) + len(sent) == len(kept)
    assert encode(hello) in sent[0]
    assert encode(letter) in received[2]
    assert received[-1] == b"garbage"
    assert any(b"sealed envelope" in message for message in sent)
    with sqlite3.connect(tmp_path / "data" / "relay.sqlite") as db:
        assert db.execute("SELECT envelope FROM mail").fetchall() == [(b"sealed envelope",)]
    db.close()


async def test_turn(start_relay, tmp_path):
    """Every datagram of the TURN socket is kept with time and source."""
    relay = start_relay("--capture", tmp_path / "kept")
    port = int(relay.ready["turn"].partition("?")[0].rpartition(":")[2])
    binding = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(5)
        udp.bind(("127.0.0.1", 0))
        for datagram in (b"garbage", binding):
            udp.sendto(datagram, ("127.0.0.1", port))
        udp.recv(1500)
        source = udp.getsockname()[1]
    relay.terminate()
    kept = records(tmp_path / "kept" / "turn.bin")
    head = source.to_bytes(2) + b"\x04" + bytes([127, 0, 0, 1])
    assert [record[8:] for record in kept] == [head + b"garbage", head + binding]
    assert all(abs(int.from_bytes(record[:8]) / 1e6 - time.time()) < 60 for record in kept)
