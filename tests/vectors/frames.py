"""Operations of media frames and of the relay (spec/sframe.md, wire.md, ticket-ids.md)."""

from typing import Any

from msgspec import to_builtins

from e2ecall.protocol import sframe, sound
from e2ecall.protocol import sframe_header as headers
from e2ecall.protocol.encoding import decode_remote, parse_remote_address
from e2ecall.protocol.invitation import InvitationLink
from e2ecall.protocol.messages import Codec, Stream
from e2ecall.protocol.sframe import SFrameReceiver, SFrameSender
from relay.services import directory, policy, tickets
from relay.services.mailbox import BoxMailbox
from relay.services.signatures import RelayKey
from relay.wire import codes, records
from relay.wire.codec import decode, encode
from relay.wire.limits import MAX_FRAME
from relay.wire.messages import ClientFrame, Policy, ServerFrame
from relay.wire.records import SignedDeviceList
from relay.wire.turn_servers import urls_for
from tests.vectors.harness import Given, MismatchError, operation


@operation
def sframe_key(given: Given):
    key, salt = sframe.derive_key_and_salt(given.secret("base_key"), given["kid"])
    return {"key": key, "salt": salt}


@operation
def sframe_header(given: Given):
    header = headers.encode_header(given["kid"], given["ctr"])
    if headers.parse_header(header, 0) != (given["kid"], given["ctr"], len(header)):
        raise MismatchError("the header reads as another one")
    return {"header": header}


@operation
def read_sframe_header(given: Given):
    kid, ctr, _ = headers.parse_header(given.hex("header"), 0)
    return {"kid": kid, "ctr": ctr}


@operation
def sframe_kid(given: Given):
    return {"kid": headers.key_id(given["epoch"], Stream(given["stream"]), given["sender"])}


def _prefix(given: Given, frame: bytes) -> int:
    return sframe.clear_prefix_length(Codec[given["codec"].upper()], frame)


@operation
def sframe_protect(given: Given):
    sender = SFrameSender(given.secret("base_key"), given["kid"])
    for _ in range(given["ctr"]):
        sender.encrypt(b"", 0)
    frame = given.hex("frame")
    prefix = _prefix(given, frame)
    return {"clear_prefix": prefix, "protected": sender.encrypt(frame, prefix)}


@operation
def sframe_open(given: Given):
    receiver = SFrameReceiver()
    receiver.add_key(given["kid"], given.secret("base_key"))
    protected = given.hex("protected")
    prefix = _prefix(given, protected)
    return {"clear_prefix": prefix, "frame": receiver.decrypt(protected, prefix)}


@operation
def sound_frame(given: Given):
    before = [bytes.fromhex(packet) for packet in given["before"]]
    own, count = given.hex("own"), len(before)
    frame = sound.pack(own, before, given["payload_type"])
    ticks = [(count - place) * 960 for place in range(count)]
    read = sound.unpack(frame, given["payload_type"])
    if [(one.ticks, one.data) for one in read] != [*zip(ticks, before, strict=True), (0, own)]:
        raise MismatchError("the frame reads as another one")
    return {"frame": frame}


@operation
def read_sound_frame(given: Given):
    return {"sounds": len(sound.unpack(given.hex("frame"), given["payload_type"]))}


def _receiver(given: Given) -> SFrameReceiver:
    receiver = SFrameReceiver()
    for key in given["keys"]:
        receiver.add_key(key["kid"], Given(key, given.file).secret("base_key"))
    return receiver


@operation
def sframe_receive(given: Given):
    receiver = _receiver(given)
    for frame in given.hexes("before"):
        receiver.decrypt(frame, _prefix(given, frame))
    for kid in given["removed"]:
        receiver.remove_key(kid)
    if "retire_before" in given:
        receiver.retire_before(given["retire_before"])
    frame = given.hex("frame")
    return {"frame": receiver.decrypt(frame, _prefix(given, frame))}


@operation
def sframe_window(given: Given):
    receiver = _receiver(given)
    frames = given.hexes("frames")
    return {"frames": [receiver.decrypt(frame, _prefix(given, frame)) for frame in frames]}


def _frame(given: Given, kind: Any):
    data = given.hex("encoded")
    value = decode(data, kind, limit=MAX_FRAME)
    if encode(value) != data:
        raise MismatchError("the frame is encoded in another way")
    return {"fields": to_builtins(value, builtin_types=(bytes,))}


@operation
def client_frame(given: Given):
    return _frame(given, ClientFrame)


@operation
def server_frame(given: Given):
    return _frame(given, ServerFrame)


@operation
def read_client_frame(given: Given):
    decode(given.hex("data"), ClientFrame, limit=MAX_FRAME)
    return {}


@operation
def address(given: Given):
    found = parse_remote_address(given["text"])
    return {"username": found.username, "relay": found.relay}


@operation
def bound_challenge(given: Given):
    return {"bound": records.bound_challenge(given.hex("challenge"), given.hex("endpoint"))}


@operation
def reply_box(given: Given):
    return {"box": BoxMailbox.of_key(given.hex("key")).box}


@operation
def token_hash(given: Given):
    return {"hash": policy.token_hash(given.hex("token"))}


@operation
def invitation(given: Given):
    address = parse_remote_address(given["address"])
    token, seen = given.hex("token"), given.hex("fingerprint")
    return {"text": InvitationLink(address, token, given["expires"], seen).encode()}


@operation
def read_invitation(given: Given):
    link = InvitationLink.decode(given["text"])
    return {
        "address": str(link.address),
        "token": link.token,
        "expires": link.expires,
        "fingerprint": link.fingerprint,
    }


@operation
def registration_code(given: Given):
    code = codes.read_code(given["text"])
    if codes.read_code(codes.write_code(code)) != code:
        raise MismatchError("the code is written in another way")
    return {"code": code, "hash": codes.code_hash(code)}


def _request(given: Given) -> Any:
    return decode(given.hex("request"), ClientFrame, limit=MAX_FRAME).body


@operation
def relay_login(given: Given):
    device = directory.log_in(
        _account(given),
        _request(given),
        relay=given["relay"],
        challenge=given.hex("challenge"),
        nobody=RelayKey.generate().public,
    )
    return {"device_id": device.device_id}


@operation
def relay_delete(given: Given):
    directory.check_deletion(
        _account(given),
        _request(given).signature,
        relay=given["relay"],
        challenge=given.hex("challenge"),
    )
    return {}


def _account(given: Given):
    signed = decode_remote(given.hex("account"), SignedDeviceList, limit=4096)
    listed = directory.read_list(signed)
    newest = max(device.device_id for device in listed.devices)
    username = listed.address.partition("@")[0]
    return directory.Account(username, signed, listed, newest, Policy.EVERYONE)


@operation
def relay_register(given: Given):
    account = directory.register(
        _request(given),
        relay=given["relay"],
        challenge=given.hex("challenge"),
        now=given["now"],
    )
    return {"username": account.username, "identity_key": account.device_list.identity_key}


@operation
def ticket(given: Given):
    secret = given.hex("secret")
    issued = tickets.issue(secret, given["at"], given["ttl"], given.hex("ticket"))
    for side, credential in enumerate(issued):
        identity = tickets.open_id(secret, credential.username, given["at"])
        if (identity.ticket_id, identity.side) != (given.hex("ticket"), side):
            raise MismatchError("the username opens to something else")
    return {
        "expires": tickets.expires_at(issued[0]),
        "usernames": [credential.username for credential in issued],
        "passwords": [credential.password for credential in issued],
    }


@operation
def turn_server(given: Given):
    return {"urls": list(urls_for(given["urls"], given["username"]))}


@operation
def open_ticket(given: Given):
    identity = tickets.open_id(given.hex("secret"), given["username"], given["now"])
    return {"ticket": identity.ticket_id, "side": identity.side}
