"""Carrying out requests (spec/wire.md, Requests): check, store, answer.

The rules are in `relay.services`, the storage behind `relay.io.storage`; this is their order. One
function for each kind of request; what needs a log-in gets the account from the storage anew, so
a device that was removed a moment ago can do nothing any more.
"""

import os
from collections.abc import Sequence
from typing import Final, assert_never, cast

from relay.errors import RefusedError
from relay.io.budgets import count, count_stranger, make_room
from relay.io.mailing import acknowledge, failure, send
from relay.io.node import Node
from relay.io.session import Session
from relay.services import directory, tickets
from relay.services.directory import Account
from relay.services.mailbox import BoxMailbox, DeviceMailbox
from relay.services.policy import token_hash
from relay.wire.codes import code_hash
from relay.wire.limits import MAX_PREKEY_BATCH, MAX_TOKENS
from relay.wire.messages import (
    AbuseContact,
    Ack,
    AddTokens,
    BoxOpened,
    Bundle,
    Certificate,
    DeleteAccount,
    Done,
    Enrol,
    ErrorCode,
    FetchAbuseContact,
    FetchBundle,
    FetchCertificate,
    FetchOwnList,
    Login,
    MediaTicket,
    OpenBox,
    OwnList,
    PrekeyStatus,
    PublishPrekeys,
    PutInvitations,
    PutTokens,
    Register,
    Reply,
    Request,
    Send,
    SetPolicy,
    Ticket,
    UpdateDeviceList,
    UseTokens,
)
from relay.wire.names import or_nobody
from relay.wire.records import Device

FRAMING: Final = 16
"""Bytes of a frame around its request, at most."""
ACCOUNT_BYTES: Final = 4096
"""What a new account takes up before it has keys."""

_Change = (
    UpdateDeviceList
    | PublishPrekeys
    | SetPolicy
    | PutTokens
    | AddTokens
    | UseTokens
    | PutInvitations
)
_Managing = PrekeyStatus | FetchCertificate | MediaTicket | DeleteAccount
_Alone = (
    FetchBundle
    | OpenBox
    | Register
    | Login
    | FetchAbuseContact
    | FetchOwnList
    | Enrol
    | _Change
    | _Managing
)
"""What is always carried out by itself."""


async def answer(session: Session, requests: Sequence[Request], size: int) -> Sequence[Reply]:
    """Carry out a request of a frame of ``size`` bytes, or a run, and return the replies.

    Raises:
        StorageError: nothing was changed, or nobody knows; the client may ask again.
    """
    match requests[0]:
        case Send():
            return await send(session, cast("Sequence[Send]", requests))
        case Ack():
            return await acknowledge(session, cast("Sequence[Ack]", requests))
        case request:
            try:
                return [await _answer(session, request, size)]
            except RefusedError as error:
                return [failure(error)]


async def _answer(session: Session, request: _Alone, size: int) -> Reply:
    """Carry out one request.

    Raises:
        RefusedError: nothing was changed.
        StorageError: nothing was changed, or nobody knows; the client may ask again.
    """
    match request:
        case FetchBundle():
            return await _fetch_bundle(session, request)
        case OpenBox():
            return await _open_box(session, request)
        case Register():
            return await _register(session, request)
        case Login():
            return await _log_in(session, request)
        case FetchAbuseContact():
            return AbuseContact(session.node.abuse_contact or None)
        case FetchOwnList():
            return await _fetch_own_list(session, request)
        case Enrol():
            return await _enrol(session, request)
        case _:
            return await _of_account(session, request, size)


# --- mail -------------------------------------------------------------------------------------


async def _open_box(session: Session, request: OpenBox) -> Reply:
    box = BoxMailbox.of_key(request.key)
    await count(session.node.quotas.boxes, session)
    if session.queue.is_full:
        raise RefusedError(ErrorCode.TOO_MANY, "too many mailboxes on one connection")
    await session.node.mailbox.open_box(box, session.node.clock())
    await session.read(box)
    return BoxOpened(box.box)


async def _fetch_bundle(session: Session, request: FetchBundle) -> Reply:
    node, username = session.node, or_nobody(request.username)
    shown = token_hash(request.token)
    await count(node.quotas.fetches, session)
    await count_stranger(node.quotas.targets, session, username, username, shown)
    handed_out = await node.directory.take_bundle(username, request.device_id, shown, node.clock())
    if handed_out is None:
        raise RefusedError(ErrorCode.NOT_REACHABLE, "not reachable")
    if handed_out.needs_refill:
        node.bus.low(DeviceMailbox(username, handed_out.bundle.device_id))
    return Bundle(handed_out.bundle)


# --- becoming somebody ------------------------------------------------------------------------


async def _register(session: Session, request: Register) -> Reply:
    node = session.node
    _refuse_second_login(session)
    if node.registration == "closed":
        raise RefusedError(ErrorCode.REGISTRATION_CLOSED, "this relay takes no new accounts")
    await count(node.quotas.registrations, session)
    code = None
    if node.registration == "invite":
        if request.code is None:
            raise RefusedError(ErrorCode.REGISTRATION_CLOSED, "this relay wants a code to register")
        code = directory.CodeUse(code_hash(request.code), node.clock())
    account = directory.register(
        request, relay=node.name, challenge=session.challenge, now=node.clock()
    )
    await make_room(node, ACCOUNT_BYTES, is_strangers=True)
    await node.directory.create(account, code)
    return await _become(session, account.username, account.device_list.devices[0])


async def _log_in(session: Session, request: Login) -> Reply:
    node = session.node
    _refuse_second_login(session)
    account = await _account_or_nobody(node, request.username)
    device = directory.log_in(
        account,
        request,
        relay=node.name,
        challenge=session.challenge,
        nobody=node.key.public,
    )
    return await _become(session, request.username, device)


async def _fetch_own_list(session: Session, request: FetchOwnList) -> Reply:
    node = session.node
    _refuse_second_login(session)
    await count(node.quotas.registrations, session)
    account = directory.recovered(
        await _account_or_nobody(node, request.username),
        request,
        relay=node.name,
        challenge=session.challenge,
        nobody=node.key.public,
    )
    return OwnList(account.signed_list, account.newest_device_id)


async def _enrol(session: Session, request: Enrol) -> Reply:
    node = session.node
    _refuse_second_login(session)
    await count(node.quotas.registrations, session)
    account = await _account_or_nobody(node, request.username)
    new = directory.enrolled(
        account,
        request,
        relay=node.name,
        challenge=session.challenge,
        nobody=node.key.public,
        now=node.clock(),
    )
    if account is not None and new is not account:
        await _replace_list(session, account, new)
    return await _become(session, new.username, new.device_list.devices[-1])


async def _account_or_nobody(node: Node, username: str) -> Account | None:
    account = await node.directory.account(or_nobody(username))
    if account is None:
        # WIRE-12 MUST: as much work as for one that there is.
        directory.read_nobody()
    return account


def _refuse_second_login(session: Session) -> None:
    if session.device is not None:
        raise RefusedError(ErrorCode.BAD_REQUEST, "this connection is logged in already")


async def _become(session: Session, username: str, device: Device) -> Reply:
    mailbox = DeviceMailbox(username, device.device_id)
    # WIRE-38 MUST: before anything is read, which is after the reply.
    session.set_aside = await session.node.mailbox.count_set_aside(mailbox)
    await session.read(mailbox)
    session.device = mailbox
    return Done()


# --- managing an account ----------------------------------------------------------------------


async def _of_account(session: Session, request: _Change | _Managing, size: int) -> Reply:
    account, device = await _logged_in(session)
    if isinstance(request, _Change):
        # WIRE-48 MUST: counted before any signature is looked at. A part of a set changes nothing
        # yet: who has many contacts may block as many of them in a minute as others.
        if not isinstance(request, AddTokens):
            await count(session.node.quotas.changes, session, account.username)
        return await _change(session, account, device, request, size)
    return await _manage(session, account, device, request)


async def _change(
    session: Session, account: Account, device: Device, request: _Change, size: int
) -> Reply:
    stored = session.node.directory
    match request:
        case PublishPrekeys():
            return await _publish(session, account, device, request, size)
        case UpdateDeviceList():
            return await _update_device_list(session, account, request)
        case SetPolicy():
            await stored.set_policy(account.username, request.policy)
        case PutTokens() | AddTokens() | UseTokens():
            await _change_tokens(session, account, request)
        case PutInvitations():
            await stored.put_invitations(account.username, request.invitations)
    return Done()


async def _manage(session: Session, account: Account, device: Device, request: _Managing) -> Reply:
    match request:
        case DeleteAccount():
            return await _delete(session, account, request)
        case MediaTicket():
            return await _media_ticket(session, account)
        case FetchCertificate():
            now = session.node.clock()
            return Certificate(directory.certify(session.node.key, account, now=now))
        case PrekeyStatus():
            now = session.node.clock()
            name = account.username
            return await session.node.directory.count_prekeys(name, device.device_id, now)
        case _:
            assert_never(request)


async def _logged_in(session: Session) -> tuple[Account, Device]:
    if session.device is not None:
        account = await session.node.directory.account(session.device.username)
        device = None if account is None else account.device(session.device.device_id)
        if account is not None and device is not None:
            return account, device
    raise RefusedError(ErrorCode.NOT_LOGGED_IN, "this needs a log-in")


async def _publish(
    session: Session, account: Account, device: Device, request: PublishPrekeys, size: int
) -> Reply:
    if size > MAX_PREKEY_BATCH + FRAMING:
        raise RefusedError(ErrorCode.BAD_REQUEST, "a batch of prekeys has at most 48 KiB")
    node = session.node
    prekeys = directory.check_prekeys(
        request.prekeys,
        address=account.device_list.address,
        device=device,
        now=node.clock(),
    )
    await make_room(node, size, is_strangers=False)
    await node.directory.add_prekeys(account.username, device.device_id, prekeys)
    return Done()


async def _update_device_list(
    session: Session, account: Account, request: UpdateDeviceList
) -> Reply:
    node = session.node
    new = directory.updated(account, request.device_list, relay=node.name, now=node.clock())
    if new is not account:
        await _replace_list(session, account, new)
    return Done()


async def _replace_list(session: Session, account: Account, new: Account) -> None:
    await session.node.directory.replace_device_list(new)
    for device in account.device_list.devices:
        if new.device(device.device_id) is None:
            mailbox = DeviceMailbox(account.username, device.device_id)
            await session.node.presence.evict(mailbox)


async def _change_tokens(
    session: Session, account: Account, request: PutTokens | AddTokens | UseTokens
) -> None:
    match request:
        case AddTokens():
            _add_tokens(session, request)
            return
        case UseTokens():
            tokens, session.tokens = session.tokens, []
            if request.count != len(tokens):
                raise RefusedError(ErrorCode.STALE, "these are not all tokens of the set")
        case PutTokens():
            tokens = list(request.hashes)
    await session.node.directory.put_tokens(account.username, tokens)


def _add_tokens(session: Session, request: AddTokens) -> None:
    waiting = session.tokens if request.begin else []
    if request.begin != len(waiting):
        session.tokens = []
        raise RefusedError(ErrorCode.STALE, "this part does not follow the one before")
    if len(waiting) + len(request.hashes) > MAX_TOKENS:
        session.tokens = []
        raise RefusedError(ErrorCode.BAD_REQUEST, f"an account has at most {MAX_TOKENS} tokens")
    session.tokens = [*waiting, *request.hashes]


async def _media_ticket(session: Session, account: Account) -> Reply:
    node = session.node
    await node.quotas.tickets.take(account.username, node.clock())
    a, b = tickets.issue_for(
        node.turn_secret,
        node.clock(),
        node.ticket_seconds,
        urls=node.turn_urls,
        own_host=node.turn_own_host,
        random_id=lambda: os.urandom(tickets.TICKET_ID_BYTES),
    )
    return Ticket(a, b, tickets.expires_at(a))


async def _delete(session: Session, account: Account, request: DeleteAccount) -> Reply:
    node = session.node
    directory.check_deletion(
        account, request.signature, relay=node.name, challenge=session.challenge
    )
    await node.directory.delete(account.username)
    own = session.device
    for device in account.device_list.devices:
        mailbox = DeviceMailbox(account.username, device.device_id)
        if mailbox == own:
            session.forget_device()
        await node.presence.evict(mailbox)
    return Done()
