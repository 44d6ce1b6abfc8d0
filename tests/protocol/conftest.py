"""Two real endpoints: what a client does around the session, without network and store."""

from dataclasses import dataclass, field

import pytest

from e2ecall.errors import E2ECallError, RemoteProtocolError
from e2ecall.protocol import prekeys as prekeys_module
from e2ecall.protocol import session
from e2ecall.protocol.local import LocalDevice
from e2ecall.protocol.peer import PeerState
from e2ecall.protocol.peerstore import peer_from_bytes, peer_to_bytes
from e2ecall.protocol.prekeys import PreKeyState
from relay.wire.names import Address
from relay.wire.records import PreKey, PreKeyBundle, PreKeyKind

NOW = 1_800_000_000.0


@dataclass
class Endpoint:
    """A device with its prekeys, its directory entry, its peers, and a clock set by the test."""

    local: LocalDevice
    prekeys: PreKeyState
    published: list[PreKey]
    peers: dict[Address, PeerState] = field(default_factory=dict)
    relay_keys: dict[str, bytes] = field(default_factory=dict)
    now: float = NOW

    @classmethod
    def generate(cls, name: str) -> "Endpoint":
        local = LocalDevice.generate(Address(name, "relay.example"), now=NOW)
        state, published = prekeys_module.generate(local, now=NOW)
        return cls(local, state, list(published))

    @property
    def address(self) -> Address:
        return self.local.address

    def take(self, kind: PreKeyKind) -> PreKey | None:
        """Serve a prekey as a relay does: one-time keys once, of the others the newest."""
        found = [prekey for prekey in self.published if prekey.kind == kind]
        if kind in (PreKeyKind.ONE_TIME_X25519, PreKeyKind.ONE_TIME_MLKEM1024):
            if not found:
                return None
            self.published.remove(found[0])
            return found[0]
        return found[-1]

    def bundle(self, *, one_time: bool = True) -> PreKeyBundle:
        kem = self.take(PreKeyKind.ONE_TIME_MLKEM1024) if one_time else None
        return PreKeyBundle(
            self.local.device_list,
            self.local.keys.device_id,
            self.take(PreKeyKind.SIGNED_X25519),
            self.take(PreKeyKind.SEALING),
            kem or self.take(PreKeyKind.LAST_RESORT_MLKEM1024),
            self.take(PreKeyKind.ONE_TIME_X25519) if one_time else None,
        )

    def initiate(self, other: "Endpoint", *, one_time: bool = True) -> PeerState:
        peer = session.initiate(
            self.local,
            other.bundle(one_time=one_time),
            address=other.address,
            known=self.peers.get(other.address),
            now=self.now,
        )
        self.peers[other.address] = peer
        return peer

    def send(self, other: "Endpoint", text: bytes, *, call: bool = False) -> bytes:
        peer, envelope = session.seal(
            self.local, self.prekeys, self.peers[other.address], text, call=call, now=self.now
        )
        # Through the store and back, so that every test also covers the stored form.
        self.peers[other.address] = peer_from_bytes(peer_to_bytes(peer))
        return envelope

    def receive(self, envelope: bytes) -> session.Received:
        unsealed = session.unseal(self.local, self.prekeys, envelope)
        found = [
            peer
            for peer in self.peers.values()
            if peer.session(unsealed.session_id) is not None
            or (unsealed.claim is not None and peer.address == unsealed.claim.address)
        ]
        received = session.receive(
            self.local,
            self.prekeys,
            found[0] if found else None,
            unsealed,
            relay_keys=self.relay_keys,
            now=self.now,
        )
        self.peers[received.peer.address] = received.peer
        self.prekeys = received.prekeys
        return received

    def refuses(self, envelope: bytes) -> E2ECallError:
        """Return the error; the stored states are the ones from before."""
        peers, prekeys = dict(self.peers), self.prekeys
        with pytest.raises(E2ECallError) as refusal:
            self.receive(envelope)
        assert self.peers == peers
        assert self.prekeys == prekeys
        return refusal.value


@pytest.fixture
def endpoint():
    """Return the maker of endpoints."""
    return Endpoint.generate


@pytest.fixture
def alice() -> Endpoint:
    return Endpoint.generate("alice")


@pytest.fixture
def bob() -> Endpoint:
    return Endpoint.generate("bob")


@pytest.fixture
def talking(alice, bob) -> tuple[Endpoint, Endpoint]:
    """Two endpoints with an established session: one message went each way."""
    alice.initiate(bob)
    bob.receive(alice.send(bob, b"hello"))
    alice.receive(bob.send(alice, b"hello yourself"))
    return alice, bob


@pytest.fixture
def refused():
    """Return a context that expects a refusal with exactly this reason."""

    def expect(reason):
        return pytest.raises(RemoteProtocolError, check=lambda error: error.reason is reason)

    return expect
