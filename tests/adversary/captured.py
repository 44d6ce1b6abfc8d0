"""Reads what ``serve --capture`` kept of a relay that has ended (relay/io/capture.py)."""

from relay.wire.codec import decode
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import ClientFrame

RECEIVED = 0

STUN_METHODS = {
    0x0001: "Binding",
    0x0003: "Allocate",
    0x0004: "Refresh",
    0x0008: "CreatePermission",
    0x0009: "ChannelBind",
    0x0016: "Send",
}


def records(path):
    data, at = path.read_bytes(), 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 4 + length]
        at += 4 + length


def _received(folder):
    for record in records(folder / "turn.bin"):
        end = 11 + record[10]
        yield int.from_bytes(record[:8]) / 1e6, record[8:end], record[end:]


def datagrams(folder):
    """Yield (Unix seconds, source, kind) of what the TURN socket received."""
    for at, source, datagram in _received(folder):
        kind = int.from_bytes(datagram[:2])
        name = "ChannelData" if kind & 0xC000 == 0x4000 else STUN_METHODS[kind]
        yield at, source, name


def sent_streams(folder):
    """Yield (Unix seconds, source, payload type) of every RTP packet that was to be forwarded."""
    for at, source, datagram in _received(folder):
        packet = datagram[4:]  # behind channel number and length
        if datagram[0] & 0xC0 == 0x40 and len(packet) >= 12 and packet[0] >> 6 == 2:
            kind = packet[1] & 0x7F
            if not 64 <= kind < 96:  # RTCP
                yield at, source, kind


def requests(folder, kind):
    """Return the bodies of all requests of a kind that the relay received."""
    received = (
        record[13:] for record in records(folder / "signalling.bin") if record[12] == RECEIVED
    )
    bodies = (decode(message, ClientFrame, limit=MAX_FRAME).body for message in received)
    return [body for body in bodies if isinstance(body, kind)]
