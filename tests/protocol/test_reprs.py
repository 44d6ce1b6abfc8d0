"""What is printed of protocol values, by a debugger or a log (spec/threat-model.md): S4."""

from e2ecall.protocol import prekeystore
from e2ecall.protocol.call_events import PeerText
from e2ecall.protocol.encoding import decode_stored
from e2ecall.protocol.prekeystore import prekeys_to_bytes
from e2ecall.protocol.ratchetstore import to_stored

SAID = b"correct horse battery staple"


def test_stored_forms_show_no_secret(alice, bob):
    """S4: what goes into the store, comes out of it, or was said, shows no secret in its repr."""
    alice.initiate(bob)
    alice.send(bob, b"skipped")
    received = bob.receive(alice.send(bob, SAID))
    alice.receive(bob.send(alice, b"a chain to send on"))
    ratchet = bob.peers[alice.address].active.ratchet
    prekeys = decode_stored(prekeys_to_bytes(bob.prekeys), prekeystore._Stored)
    stored = to_stored(ratchet)
    things = [
        received,
        stored,
        stored.sending,
        stored.receiving,
        prekeys,
        prekeys.rotated,
        PeerText(SAID.decode()),
    ]
    values = [
        SAID,
        ratchet.root_key.expose(),
        ratchet.sending.chain_key.expose(),
        ratchet.receiving[0].header_key.expose(),
        ratchet.receiving[0].skipped[0].key.expose(),
        *(key.private.expose() for key in bob.prekeys.rotated),
        *(key.expose() for key in bob.prekeys.one_time_x25519.values()),
    ]
    text = "\n".join(map(repr, things))
    assert text.count("(...)") == 4
    assert not any(repr(value)[2:-1] in text for value in values)
