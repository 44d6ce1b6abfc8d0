"""What every storage backend does alike with accounts (spec/wire.md, Accounts).

Each test runs on two nodes: on two that share a database, or twice on the only one.
"""

import os
from dataclasses import replace

import pytest
import trio
from msgspec.structs import replace as struct_replace
from nacl.signing import SigningKey

from relay.errors import RefusedError
from relay.io.storage import Totals
from relay.services.directory import CodeUse, read_list, updated
from relay.services.mailbox import (
    BoxMailbox,
    DeviceMailbox,
    Stored,
)
from relay.wire.messages import ErrorCode, Invitation, Policy, PrekeyCounts
from relay.wire.records import PreKeyKind
from tests.relay.io.storing import DEVICE, NOW, account, put, read

pytestmark = pytest.mark.trio


async def test_expired_device_list(storage, speak):
    """WIRE-16: no one-time prekey is spent on an account whose device list expired."""
    identity, somebody = account(speak)
    await storage.directory.create(somebody)
    far = int(NOW) * 2
    keys = [identity.prekey(kind, 1, expires=far) for kind in PreKeyKind]
    await storage.directory.add_prekeys("somebody", 1, keys)
    late = somebody.device_list.expires
    assert await storage.directory.take_bundle("somebody", None, None, late) is None
    assert await storage.directory.count_prekeys("somebody", 1, late) == PrekeyCounts(1, 1)


async def test_device_lists_in_order(storage, speak):
    """WIRE-13: a newer list may follow a lost one; what comes late or beside it is STALE."""
    identity, somebody = account(speak)
    await storage.directory.create(somebody)
    stored, lists = somebody.signed_list, []
    for _ in range(3):
        stored = identity.next_list(stored, expires=int(NOW) + 86_400)
        lists.append(replace(somebody, signed_list=stored, device_list=read_list(stored)))
    await storage.directory.replace_device_list(lists[1])
    identity.version, identity.previous = 4, bytes(64)
    fork = identity.device_list(expires=int(NOW) + 86_400)
    beside = replace(somebody, signed_list=fork, device_list=read_list(fork))
    for refused in (lists[0], lists[1], beside):
        with pytest.raises(RefusedError) as caught:
            await storage.directory.replace_device_list(refused)
        assert caught.value.code is ErrorCode.STALE
    await storage.directory.replace_device_list(lists[2])
    found = await storage.directory.account("somebody")
    assert found.device_list.version == 4


async def test_device_lists_beside_each_other(storage, speak):
    """WIRE-13: of two lists that followed the same one, the later one cannot use ids or give keys
    that only the earlier one rules out.
    """
    identity, somebody = account(speak)
    await storage.directory.create(somebody)

    def later(version, device_id):
        identity.version = version
        identity.devices[device_id] = SigningKey.generate()
        identity.records = {one: identity.record(one) for one in (1, device_id)}
        identity.records[1] = somebody.device_list.devices[0]
        signed = identity.device_list(previous=bytes(64), expires=int(NOW) + 86_400)
        return updated(somebody, signed, relay="relay.example", now=NOW)

    await storage.directory.replace_device_list(later(3, 9))
    for beside in (later(5, 2), later(5, 9)):
        with pytest.raises(RefusedError) as caught:
            await storage.directory.replace_device_list(beside)
        assert caught.value.code is ErrorCode.BAD_REQUEST
    found = await storage.directory.account("somebody")
    assert (found.device_list.version, found.newest_device_id) == (3, 9)
    alone = replace(
        found, device_list=struct_replace(found.device_list, version=7), newest_device_id=1
    )
    await storage.directory.replace_device_list(alone)
    assert (await storage.directory.account("somebody")).newest_device_id == 9


async def test_a_name_is_given_out_once(nodes, speak):
    """WIRE-10, WIRE-15: of many registrations of a name one succeeds; deleted, it stays taken."""
    first, second = nodes
    results = []

    async def create(storage):
        try:
            await storage.directory.create(account(speak)[1])
            results.append(None)
        except RefusedError as error:
            results.append(error.code)

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(create, first.storage)
            nursery.start_soon(create, second.storage)
    taken = ErrorCode.USERNAME_TAKEN
    assert sorted(results, key=str) == [taken] * 7 + [None]
    await first.storage.directory.delete("somebody")
    await create(second.storage)
    assert results[-1] is taken


async def test_the_same_account_again(nodes, speak):
    """WIRE-10: the very same registration again is no error, at whatever node."""
    somebody = account(speak)[1]
    for node in nodes:
        await node.storage.directory.create(somebody)
    assert await nodes[1].storage.directory.account("somebody") == somebody


async def test_tokens_at_another_node(nodes, speak):
    """WIRE-21: policy and tokens hold at every node, from when their call returned."""
    first, second = (node.storage for node in nodes)
    await first.directory.create(account(speak)[1])
    token = os.urandom(32)
    await first.directory.set_policy("somebody", Policy.CONTACTS)
    assert await put(second, DEVICE, shown=token) is Stored.REFUSED
    await first.directory.put_tokens("somebody", [token, os.urandom(32)])
    assert await put(second, DEVICE, shown=token) is Stored.NEW
    await second.directory.put_tokens("somebody", [])
    assert await put(first, DEVICE, shown=token) is Stored.REFUSED


@pytest.mark.parametrize("policy", Policy)
async def test_policies(storage, speak, policy):
    """WIRE-21: what each policy lets through with a token, with another and with none."""
    identity, somebody = account(speak)
    await storage.directory.create(somebody)
    far = int(NOW) + 86_400
    keys = [identity.prekey(kind, 1, expires=far) for kind in PreKeyKind]
    await storage.directory.add_prekeys("somebody", 1, keys)
    token = os.urandom(32)
    await storage.directory.set_policy("somebody", policy)
    await storage.directory.put_tokens("somebody", [os.urandom(32), token])
    for shown in (token, os.urandom(32), None):
        allowed = policy is Policy.EVERYONE or (policy is Policy.CONTACTS and shown is token)
        stored = Stored.NEW if allowed else Stored.REFUSED
        assert await put(storage, DEVICE, shown=shown) is stored
        handed_out = await storage.directory.take_bundle("somebody", None, shown, NOW)
        assert (handed_out is not None) is allowed


async def test_invitations(nodes, speak):
    """WIRE-25: the token of an invitation is good at every node until it expires or is replaced."""
    first, second = (node.storage for node in nodes)
    await first.directory.create(account(speak)[1])
    await first.directory.set_policy("somebody", Policy.CONTACTS)
    token, other = os.urandom(32), os.urandom(32)
    end = int(NOW) + 60
    await first.directory.put_invitations("somebody", [Invitation(token, end)])
    assert await put(second, DEVICE, shown=token, now=end - 1) is Stored.NEW
    assert await put(second, DEVICE, shown=token, now=end) is Stored.REFUSED
    await second.directory.put_invitations("somebody", [Invitation(other, end)])
    assert await put(first, DEVICE, shown=token) is Stored.REFUSED
    assert await put(first, DEVICE, shown=other) is Stored.NEW
    await first.directory.set_policy("somebody", Policy.NOBODY)
    assert await put(second, DEVICE, shown=other) is Stored.REFUSED
    await first.directory.set_policy("somebody", Policy.CONTACTS)
    await first.mailbox.sweep(end)
    assert await put(second, DEVICE, shown=other, now=NOW) is Stored.REFUSED
    await first.directory.put_invitations("nobody", [Invitation(other, end)])


async def test_registration_codes(nodes, speak):
    """WIRE-19: of many who register with one code at once, at two nodes, one gets an account."""
    directory = nodes[0].storage.directory
    code = CodeUse(os.urandom(32), NOW)
    await directory.add_codes([code.hash], int(NOW) + 60)
    made, refused = [], []

    async def register(number):
        somebody = account(speak, f"name_{number}")[1]
        try:
            await nodes[number % 2].storage.directory.create(somebody, code)
            made.append(somebody)
        except RefusedError as error:
            refused.append(error.code)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(register, number)
    assert refused == [ErrorCode.REGISTRATION_CLOSED] * 9
    await directory.create(made[0], code)  # the same once more: its reply was lost
    stored = [await directory.account(f"name_{number}") for number in range(10)]
    assert [other for other in stored if other is not None] == made


async def test_registration_that_is_repeated_at_once(nodes, speak):
    """WIRE-10, WIRE-19: a registration that is repeated while it goes on succeeds at both nodes."""
    directories = [node.storage.directory for node in nodes]
    for number in range(10):
        code, somebody = CodeUse(os.urandom(32), NOW), account(speak, f"somebody{number}")[1]
        await directories[0].add_codes([code.hash], int(NOW) + 60)
        async with trio.open_nursery() as nursery:
            for directory in directories:
                nursery.start_soon(directory.create, somebody, code)


async def test_registration_code_that_stays(storage, speak):
    """WIRE-19: a registration that is refused uses up no code; an expired code is none."""
    directory = storage.directory
    code = CodeUse(os.urandom(32), NOW)
    await directory.add_codes([code.hash], int(NOW) + 60)
    await directory.create(account(speak)[1])
    with pytest.raises(RefusedError) as caught:
        await directory.create(account(speak)[1], code)
    assert caught.value.code is ErrorCode.USERNAME_TAKEN
    late = replace(code, now=NOW + 60)
    for bad in (late, CodeUse(os.urandom(32), NOW)):
        for name in ("somebody", "another"):  # it tells nothing about the name
            with pytest.raises(RefusedError) as caught:
                await directory.create(account(speak, name)[1], bad)
            assert caught.value.code is ErrorCode.REGISTRATION_CLOSED
    await directory.create(account(speak, "another")[1], code)
    await directory.add_codes([code.hash], int(NOW) + 60)
    await storage.mailbox.sweep(NOW + 60)
    with pytest.raises(RefusedError):
        await directory.create(account(speak, "third")[1], code)


async def test_totals(storage, speak):
    """What there is of everything can be counted, names left out."""
    identity, stored = account(speak)
    await storage.directory.create(stored)
    await storage.directory.create(account(speak, "another")[1])
    await storage.directory.delete("another")
    keys = [identity.prekey(kind, 1, expires=int(NOW) + 60) for kind in PreKeyKind]
    await storage.directory.add_prekeys(stored.username, 1, keys)
    await storage.mailbox.open_box(BoxMailbox(bytes(32)), NOW)
    await put(storage, DEVICE, b"12345")
    assert await storage.directory.totals() == Totals(1, 1, 1, 2, 1, 1, 1, 5, 0)


async def test_removed_device(nodes, speak):
    """WIRE-13: a device that a newer list lacks loses prekeys and mail."""
    first, second = (node.storage for node in nodes)
    identity, somebody = account(speak)
    identity.devices[2] = identity.devices[1]
    identity.records[2] = identity.record(2)
    signed = identity.device_list(expires=int(NOW) + 86_400)
    both = replace(somebody, signed_list=signed, device_list=read_list(signed), newest_device_id=2)
    await first.directory.create(both)
    other = DeviceMailbox("somebody", 2)
    assert await put(second, other) is Stored.NEW
    del identity.records[2]
    shorter = identity.next_list(signed, expires=int(NOW) + 86_400)
    await first.directory.replace_device_list(
        replace(both, signed_list=shorter, device_list=read_list(shorter))
    )
    assert await put(second, other) is Stored.REFUSED
    assert await read(second, other) == []
    assert await put(second, DEVICE) is Stored.NEW
