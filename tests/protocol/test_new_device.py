"""A new device of a known account (spec/account.md, spec/ratchet.md SESSION-11)."""

from dataclasses import replace

import pytest

from e2ecall.errors import Reason
from e2ecall.protocol import prekeys as prekeys_module
from e2ecall.protocol.devices import DEVICE_LIST_LIFETIME, sign_device_list
from e2ecall.protocol.identity import DeviceKeys
from e2ecall.protocol.local import LocalDevice


def moved(endpoint, former, local):
    """Return the endpoint that a device ``local`` of the account of ``former`` is."""
    state, published = prekeys_module.generate(local, now=former.now)
    return replace(former, local=local, prekeys=state, published=list(published), peers={})


def enrolled(former, device_id=2):
    local = former.local
    keys = DeviceKeys.generate(device_id)
    return LocalDevice.enrolled(
        local.address, local.identity, keys, local.verified_list, now=former.now
    )


def beside(former, device_id):
    """Return a second device whose list still has the former one."""
    new = enrolled(former, device_id)
    before = former.local.verified_list
    device_list = sign_device_list(
        new.identity,
        address=new.address,
        version=before.body.version + 1,
        previous=before.hash,
        devices=(former.local.keys.public, new.keys.public),
        expires=int(former.now) + DEVICE_LIST_LIFETIME,
    )
    return replace(new, device_list=device_list)


def test_the_list_of_an_enrolled_device(alice):
    """ACCOUNT-06: its list follows the stored one, has it alone, and lives as long as any."""
    before, new = alice.local.verified_list.body, enrolled(alice, 7)
    after = new.verified_list.body
    assert (after.version, after.previous) == (before.version + 1, alice.local.verified_list.hash)
    assert [device.device_id for device in after.devices] == [7]
    assert after.expires == int(alice.now) + DEVICE_LIST_LIFETIME
    assert LocalDevice.from_bytes(new.to_bytes()) == new


def test_it_takes_the_place_of_the_former(talking, endpoint):
    """SESSION-11: with its first message the sessions with the former device end."""
    alice, bob = talking
    late = alice.send(bob, b"from the former device")
    new = moved(endpoint, alice, enrolled(alice))
    new.initiate(bob)
    received = bob.receive(new.send(bob, b"from the new one"))
    assert (received.plaintext, received.initial) == (b"from the new one", True)
    assert received.peer.device_id == 2
    assert [one.session_id for one in received.peer.sessions] == [received.session_id]
    assert new.receive(bob.send(new, b"welcome")).plaintext == b"welcome"
    assert bob.refuses(late).reason is Reason.UNKNOWN_SESSION


def test_two_living_devices(talking, endpoint, refused):
    """SESSION-11: a device beside the known one does not take its sessions over."""
    alice, bob = talking
    new = moved(endpoint, alice, beside(alice, 2))
    new.initiate(bob)
    assert bob.refuses(new.send(bob, b"m")).reason is Reason.UNKNOWN_KEY
    assert bob.receive(alice.send(bob, b"still here")).plaintext == b"still here"


@pytest.mark.parametrize(
    ("device_id", "reason"), [(1, Reason.WRONG_ADDRESS), (3, Reason.STALE_DEVICE_LIST)]
)
def test_a_removed_device_that_speaks_once_more(alice, bob, endpoint, device_id, reason):
    """SESSION-11: an id that is not above the known one is a former device, or a forgery."""
    known = moved(endpoint, alice, enrolled(alice, 3))
    known.initiate(bob)
    bob.receive(known.send(bob, b"m"))
    former = moved(endpoint, known, enrolled(known, device_id))
    former.initiate(bob)
    assert bob.refuses(former.send(bob, b"m")).reason is reason
