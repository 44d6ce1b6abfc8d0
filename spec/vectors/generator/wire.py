"""Vectors of spec/wire.md and spec/ticket-ids.md: frames of both directions, boxes, tickets."""

import base64
import hashlib
import hmac

from spec.vectors.generator.encoding import Value, enc
from spec.vectors.generator.form import VectorFile
from spec.vectors.generator.people import (
    ALICE,
    BOB,
    CAROL,
    NOW,
    RELAY,
    RELAY_SEED,
    Account,
    certificate,
)
from spec.vectors.generator.prekeys import bundle, record
from spec.vectors.generator.primitives import draw, flipped, labelled, sign, sign_key, u64

_CHALLENGE = draw("challenge")
_CREDENTIAL: Value = ["1800043200:" + "A" * 44, "cGFzc3dvcmQgb2YgdGhlIGNhbGxlcg=="]


def wire() -> VectorFile:
    """wire.json."""
    file = VectorFile("wire.md", {"now": NOW})
    _frames(file)
    _refused_frames(file)
    _names(file)
    for i in range(3):
        key = draw(f"box key {i}")
        output = {"box": hashlib.sha256(labelled("box", key)).digest()}
        file.accept("reply_box", f"box_{i}", "WIRE-36", {"key": key}, output)
        challenge, endpoint = draw(f"challenge {i}"), draw(f"endpoint {i}")
        output = {"bound": hashlib.sha256(labelled("channel", challenge, endpoint)).digest()}
        given = {"challenge": challenge, "endpoint": endpoint}
        file.accept("bound_challenge", f"bound_{i}", "WIRE-45", given, output)
        token = draw(f"token {i}", 16)
        output = {"hash": hashlib.sha256(token).digest()}
        file.accept("token_hash", f"token_{i}", "WIRE-21", {"token": token}, output)
    for i in range(3):
        code = draw(f"code {i}", 16)
        text = base64.b32encode(code).decode().rstrip("=").lower()
        output = {"code": code, "hash": hashlib.sha256(code).digest()}
        written = "-".join(text[n : n + 5] for n in range(0, 26, 5))
        for form, shown in (("", written), ("_bare", text), ("_shouted", text.upper())):
            file.accept("registration_code", f"code_{i}{form}", "WIRE-19", {"text": shown}, output)
    good = base64.b32encode(draw("code 0", 16)).decode().rstrip("=").lower()
    for name, text in {
        "empty": "",
        "too_short": good[:-1],
        "too_long": good + "a",
        "padded": good + "======",
        "not_base32": "1" + good[1:],
        "with_bits_left_over": good[:-1] + "b",
        "not_ascii": "\u00e4" + good[1:],
    }.items():
        file.refuse(
            "registration_code", f"code_{name}", "WIRE-19", {"text": text}, "encoding", "malformed"
        )
    _accounts(file)
    _refused_accounts(file)
    _tickets(file)
    return file


_REQUESTS: dict[str, list[Value]] = {
    "register": [1, "alice", ALICE.signed_list(), draw("signature", 64), None],
    "register_with_code": [
        *(1, "alice", ALICE.signed_list(), draw("signature", 64)),
        draw("registration code", 16),
    ],
    "login": [2, "alice", 65_535, draw("signature", 64)],
    "update_device_list": [3, BOB.signed_list()],
    "publish_prekeys": [4, [record(1), record(3)]],
    "publish_no_prekeys": [4, []],
    "prekey_status": [5],
    "fetch_bundle": [6, "bob", 7, draw("token", 16)],
    "fetch_first_bundle": [6, "bob", None, None],
    "fetch_certificate": [7],
    "set_policy": [8, 2],
    "set_policy_nobody": [8, 3],
    "put_tokens": [9, [draw("hash 1"), draw("hash 2")]],
    "put_no_tokens": [9, []],
    "add_tokens": [19, 0, [draw("hash 1"), draw("hash 2")]],
    "add_last_tokens": [19, 1_024, [draw("hash 3")]],
    "use_tokens": [20, 1_024],
    "open_box": [10, draw("box key")],
    "send_to_account": [11, [1, "bob", 7], draw("id", 16), draw("envelope", 100), draw("t", 16)],
    "send_to_box": [11, [2, draw("box")], draw("id", 16), draw("envelope", 300), None],
    "ack": [12, [1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**63 - 1]],
    "media_ticket": [13],
    "delete_account": [14, draw("signature", 64)],
    "put_invitations": [17, [[draw("hash 1"), NOW + 86_400], [draw("hash 2"), 0]]],
    "put_no_invitations": [17, []],
    "fetch_abuse_contact": [18],
    "fetch_own_list": [15, "alice", draw("signature", 64)],
    "enrol": [16, "alice", ALICE.signed_list(), draw("signature", 64)],
}
_REPLIES: dict[str, list[Value]] = {
    "done": [64],
    "failure": [65, 8, "try again later", 86_400],
    "failure_without_text": [65, 7, "", 0],
    "failure_of_longest_text": [65, 1, "x" * 512, 1],
    "prekey_counts": [66, 0, 65_535],
    "bundle": [67, bundle(one_time=None)],
    "certificate": [68, certificate(RELAY_SEED, ALICE.address, ALICE.identity_key)],
    "box_opened": [69, draw("box")],
    "abuse_contact": [72, "abuse"],
    "no_abuse_contact": [72, None],
    "ticket": [70, _CREDENTIAL, _CREDENTIAL, NOW + 43_200],
    "own_list": [71, ALICE.signed_list(), 65_535],
}
_PUSHES: dict[str, list[Value]] = {
    "hello": [96, 1, RELAY, sign_key(RELAY_SEED), _CHALLENGE, ["turn:127.0.0.1:3478"], NOW, 1],
    "hello_without_turn": [96, 65_535, "[::1]:4567", sign_key(RELAY_SEED), _CHALLENGE, [], 0, 0],
    "deliver": [97, 1, None, draw("envelope", 100)],
    "deliver_to_box": [97, 2**63 - 1, draw("box"), draw("envelope", 70)],
    "displaced": [98],
    "going_away": [99, 600_000],
    "prekeys_low": [100],
    "set_aside": [101, 1],
    "set_aside_most": [101, 65_535],
}


def _frames(file: VectorFile) -> None:
    ids = (1, 127, 128, 255, 256, 65_535, 65_536, 2**32 - 1)
    for i, (name, body) in enumerate(_REQUESTS.items()):
        frame: Value = [ids[i % len(ids)], body]
        given = {"encoded": enc(frame)}
        file.accept("client_frame", f"request_{name}", "WIRE-04", given, {"fields": frame})
    for i, (name, body) in enumerate(_REPLIES.items()):
        frame = [ids[i % len(ids)], body]
        given = {"encoded": enc(frame)}
        file.accept("server_frame", f"reply_{name}", "WIRE-04", given, {"fields": frame})
    for name, body in _PUSHES.items():
        frame = [0, body]
        given = {"encoded": enc(frame)}
        file.accept("server_frame", f"push_{name}", "WIRE-04", given, {"fields": frame})


def _refused_frames(file: VectorFile) -> None:
    def request(*body: Value, number: Value = 1) -> bytes:
        return enc([number, list(body)])

    good = request(8, 2)
    box = draw("box")
    for name, data in {
        "empty": b"",
        "as_map": b"\x80",
        "as_nil": b"\xc0",
        "with_trailing_byte": good + b"\0",
        "cut_off": good[:-1],
        "of_three_fields": enc([1, [8, 2], None]),
        "without_body": enc([1]),
        "with_id_zero": request(8, 2, number=0),
        "with_id_too_large": request(8, 2, number=2**32),
        "with_id_nil": request(8, 2, number=None),
        "id_not_shortest": b"\x92\xcc\x01" + good[2:],
        "id_of_eight_bytes": b"\x92\xcf" + bytes(7) + b"\x01" + good[2:],
        "id_signed": b"\x92\xd0\x01" + good[2:],
        "id_negative": b"\x92\xff" + good[2:],
        "id_as_float": b"\x92\xca\x3f\x80\x00\x00" + good[2:],
        "id_as_true": b"\x92\xc3" + good[2:],
        "array_16": b"\xdc\x00\x02" + good[1:],
        "body_as_map": b"\x92\x01\x81\x08\x02",
        "of_unknown_type": request(40),
        "of_type_zero": request(0),
        "of_a_reply": request(64),
        "of_a_push": request(98),
        "of_another_push": request(100),
        "extension": b"\x92\x01\x92\x08\xd4\x01\x02",
        "reserved_byte": b"\x92\x01\x92\x08\xc1",
        "policy_zero": request(8, 0),
        "policy_four": request(8, 4),
        "policy_with_another_field": request(8, 2, None),
        "policy_without_field": request(8),
        "username_too_short": request(6, "ab", None, None),
        "username_too_long": request(6, "a" * 33, None, None),
        "username_as_bytes": request(6, b"bob", None, None),
        "username_not_utf8": b"\x92\x01\x94\x06\xa3\xff\xfe\xfd\xc0\xc0",
        "username_not_shortest": b"\x92\x01\x94\x06\xd9\x03bob\xc0\xc0",
        "device_id_zero": request(6, "bob", 0, None),
        "device_id_too_large": request(6, "bob", 65_536, None),
        "token_too_short": request(6, "bob", None, bytes(15)),
        "token_left_out": request(6, "bob", None),
        "token_as_string": request(6, "bob", None, "x" * 16),
        "box_too_short": request(10, bytes(31)),
        "envelope_empty": request(11, [2, box], bytes(16), b"", None),
        "envelope_too_long": request(11, [2, box], bytes(16), bytes(40_001), None),
        "recipient_of_type_three": request(11, [3, box], bytes(16), b"x", None),
        "recipient_box_too_long": request(11, [2, bytes(33)], bytes(16), b"x", None),
        "message_id_too_short": request(11, [2, box], bytes(15), b"x", None),
        "ack_of_none": request(12, []),
        "ack_of_65": request(12, [1] * 65),
        "ack_of_zero": request(12, [0]),
        "ack_too_large": request(12, [2**63]),
        "tokens_129": request(9, [bytes(32)] * 129),
        "token_hash_too_short": request(9, [bytes(31)]),
        "prekeys_129": request(4, [record(3)] * 129),
        "invitations_33": request(17, [[bytes(32), 1]] * 33),
        "invitation_without_expiry": request(17, [[bytes(32)]]),
        "invitation_hash_too_short": request(17, [[bytes(31), 1]]),
        "code_too_short": request(1, "alice", ALICE.signed_list(), bytes(64), bytes(15)),
        "code_left_out": request(1, "alice", ALICE.signed_list(), bytes(64)),
        "signature_too_short": request(14, bytes(63)),
        "bin_not_shortest": b"\x92\x01\x92\x0a\xc5\x00\x20" + box,
    }.items():
        given = {"data": data}
        file.refuse("read_client_frame", f"frame_{name}", "WIRE-04", given, "encoding", "malformed")


def _names(file: VectorFile) -> None:
    for text in (
        "bob@relay.example",
        "a_1@localhost",
        "x" * 32 + "@127.0.0.1:4567",
        "abc@[::1]:65535",
        "abc@xn--bcher-kva.example:8443",
    ):
        username, _, relay = text.partition("@")
        output = {"username": username, "relay": relay}
        file.accept("address", f"address_{text}", "WIRE-10", {"text": text}, output)
    for name, text in {
        "without_relay": "bob",
        "without_username": "@relay.example",
        "username_too_short": "ab@relay.example",
        "username_too_long": "a" * 33 + "@relay.example",
        "username_begins_with_digit": "1bob@relay.example",
        "username_begins_with_underscore": "_bob@relay.example",
        "username_in_capitals": "Bob@relay.example",
        "username_with_dot": "b.ob@relay.example",
        "username_not_ascii": "bób@relay.example",
        "username_with_newline": "bob\n@relay.example",
        "relay_empty": "bob@",
        "relay_in_capitals": "bob@Relay.example",
        "relay_with_port_zero": "bob@relay.example:0",
        "relay_with_leading_zero_in_port": "bob@relay.example:080",
        "relay_with_path": "bob@relay.example/v1",
        "relay_with_underscore": "bob@re_lay.example",
        "relay_ends_with_dot": "bob@relay.example.",
        "relay_with_newline": "bob@relay.example\n",
        "two_relays": "bob@relay.example@relay.example",
        "label_too_long": "bob@" + "a" * 64 + ".example",
    }.items():
        given = {"text": text}
        file.refuse("address", f"address_{name}", "WIRE-10", given, "encoding", "malformed")


def _login(who: Account, **changes: Value) -> list[Value]:
    """Return a Login whose signature is over what ``changes`` makes of it."""
    device = who.devices[0]
    fields: dict[str, Value] = {
        "relay": who.relay,
        "challenge": _CHALLENGE,
        "username": who.username,
        "device_id": device.device_id,
    }
    message = labelled("login", enc(list((fields | changes).values())))
    return [2, who.username, device.device_id, sign(device.signing_seed, message)]


def _register(who: Account, body: bytes | None = None, **changes: Value) -> list[Value]:
    signed_list = who.signed_list(body)
    fields: dict[str, Value] = {
        "relay": who.relay,
        "challenge": _CHALLENGE,
        "body": signed_list[0],
    }
    message = labelled("register", enc(list((fields | changes).values())))
    return [1, who.username, signed_list, sign(who.identity_seed, message), None]


def _delete(who: Account, label: str = "delete account", **changes: Value) -> list[Value]:
    fields: dict[str, Value] = {
        "relay": who.relay,
        "challenge": _CHALLENGE,
        "body": who.signed_list()[0],
    }
    message = labelled(label, enc(list((fields | changes).values())))
    return [14, sign(who.identity_seed, message)]


def _asked(who: Account, request: list[Value]) -> dict[str, Value]:
    return {
        "relay": who.relay,
        "challenge": _CHALLENGE,
        "account": enc(who.signed_list()),
        "request": enc([1, request]),
    }


def _accounts(file: VectorFile) -> None:
    for who in (ALICE, CAROL):
        given = _asked(who, _login(who))
        output: dict[str, Value] = {"device_id": who.devices[0].device_id}
        file.accept("relay_login", f"login_{who.username}", "WIRE-12", given, output)
        given = _asked(who, _register(who))
        output = {"username": who.username, "identity_key": who.identity_key}
        file.accept("relay_register", f"register_{who.username}", "WIRE-11", given, output)
        given = _asked(who, _delete(who))
        file.accept("relay_delete", f"delete_{who.username}", "WIRE-15", given, {})


def _refused_accounts(file: VectorFile) -> None:
    good = _login(ALICE)
    signature = good[3]
    if not isinstance(signature, bytes):
        raise TypeError("a signature is binary")
    logins: dict[str, list[Value]] = {
        "at_another_relay": _login(ALICE, relay="relay.test"),
        "of_another_connection": _login(ALICE, challenge=draw("another challenge")),
        "of_another_username": _login(ALICE, username="bob"),
        "of_another_device": _login(ALICE, device_id=2),
        "of_unknown_device": [2, "alice", 2, signature],
        "signature_altered": [*good[:3], flipped(signature, 40)],
        "by_identity_key": [*good[:3], sign(ALICE.identity_seed, b"login")],
    }
    for name, request in logins.items():
        given = _asked(ALICE, request)
        file.refuse("relay_login", f"login_{name}", "WIRE-12", given, "relay", "login_failed")
    second, other = ALICE.body(version=2, previous=ALICE.list_hash), ALICE.body(expires=NOW + 9)
    registrations: dict[str, list[Value]] = {
        "at_another_relay": _register(ALICE, relay="relay.test"),
        "of_another_connection": _register(ALICE, challenge=draw("another challenge")),
        "of_another_list": [*_register(ALICE)[:3], *_register(ALICE, other)[3:]],
        "with_second_version": _register(ALICE, second),
        "with_list_expired": _register(ALICE, ALICE.body(expires=NOW)),
        "with_list_of_twenty_days": _register(ALICE, ALICE.body(expires=NOW + 20 * 86_400)),
        "with_list_of_another": [1, "alice", BOB.signed_list(), *_register(BOB)[3:]],
        "with_list_forged": [1, "alice", [ALICE.body(), bytes(64)], *_register(ALICE)[3:]],
        "by_another_identity": [*_register(ALICE)[:3], sign(BOB.identity_seed, b"register"), None],
    }
    for name, request in registrations.items():
        given = _asked(ALICE, request)
        file.refuse("relay_register", f"register_{name}", "WIRE-11", given, "relay", "bad_request")
    deletions: dict[str, list[Value]] = {
        "signed_as_a_registration": _delete(ALICE, "register"),
        "at_another_relay": _delete(ALICE, relay="relay.test"),
        "of_another_connection": _delete(ALICE, challenge=draw("another challenge")),
        "of_another_list": _delete(ALICE, body=second),
    }
    for name, request in deletions.items():
        given = _asked(ALICE, request)
        file.refuse("relay_delete", f"delete_{name}", "WIRE-15", given, "relay", "bad_request")
    carl = Account("Carl", RELAY, draw("carl"), ALICE.devices)
    given = _asked(ALICE, _register(carl))
    name = "register_name_in_capitals"
    file.refuse("relay_register", name, "WIRE-10", given, "relay", "bad_username")


_SECRET = b"the secret that relay and TURN server share"


def _username(expires: int, content: bytes, tag: bytes | None = None) -> str:
    message = labelled("turn ticket tag", u64(expires), content)
    tag = hmac.digest(_SECRET, message, "sha256")[:16] if tag is None else tag
    stream = hmac.digest(_SECRET, labelled("turn ticket stream", tag), "sha256")
    hidden = bytes(a ^ b for a, b in zip(content, stream, strict=False))
    return f"{expires}:{base64.urlsafe_b64encode(tag + hidden).decode()}"


def _tickets(file: VectorFile) -> None:
    ticket = draw("ticket", 16)
    for at, ttl in ((NOW, 43_200), (NOW + 1, 1), (NOW + 59, 86_400)):
        expires = -(-(at + ttl) // 60) * 60
        usernames = [_username(expires, ticket + bytes([side])) for side in (0, 1)]
        output = {
            "expires": expires,
            "usernames": usernames,
            "passwords": [
                base64.b64encode(hmac.digest(_SECRET, name.encode(), "sha1")).decode()
                for name in usernames
            ],
        }
        given = {"secret": _SECRET, "at": at, "ttl": ttl, "ticket": ticket}
        file.accept("ticket", f"ticket_{at - NOW}_{ttl}", "TICKET-01", given, output)
    _servers(file, _username(NOW + 43_200, ticket + b"\0"))
    expires = NOW + 43_200
    good = _username(expires, ticket + b"\0")
    for name, username in {
        "tag_altered": good[:12] + ("A" if good[12] != "A" else "B") + good[13:],
        "side_altered": good[:-1] + ("A" if good[-1] != "A" else "E"),
        "expiry_altered": f"{expires + 60}{good[10:]}",
        "tag_of_zeros": _username(expires, ticket + b"\0", bytes(16)),
        "leading_zero": f"0{good}",
        "too_short": good[:-1],
        "too_long": good + "A",
        "other_alphabet": good[:-1] + "+",
        "without_expiry": good[10:],
        "with_newline": good + "\n",
        "expired": _username(NOW, ticket + b"\0"),
        "too_far_ahead": _username(NOW + 86_400 + 120, ticket + b"\0"),
    }.items():
        given = {"secret": _SECRET, "username": username}
        file.refuse("open_ticket", f"ticket_{name}", "TICKET-02", given, "relay", "bad_ticket")


_SERVERS = {
    "one": ["turn:127.0.0.1:3478"],
    "one_in_two_ways": ["turn:a.example:3478", "turns:a.example:5349?transport=tcp"],
    "two": ["turn:a.example:3478", "turn:b.example:3478"],
    "two_of_three_urls": ["turn:[2001:db8::1]:1", "turn:b.example", "turn:[2001:db8::1]:2"],
    "eight": [f"turn:{host}.example:3478?transport=udp" for host in "abcdefgh"],
}


def _servers(file: VectorFile, ticket: str) -> None:
    for name, urls in _SERVERS.items():
        hosts: list[str] = []
        own = {}
        for url in urls:
            text = url.split(":", 1)[1].split("?")[0]
            host = text.split("]")[0] if text[0] == "[" else text.split(":")[0]
            own[url] = host
            if host not in hosts:
                hosts.append(host)
        for username in (ticket, "anybody", ""):
            digest = hashlib.sha256(labelled("turn server", username.encode())).digest()
            chosen = hosts[int.from_bytes(digest[:4], "big") % len(hosts)]
            given = {"urls": urls, "username": username}
            output = {"urls": [url for url in urls if own[url] == chosen]}
            case = f"turn_server_{name}_{username[:7] or 'nobody'}"
            file.accept("turn_server", case, "TICKET-07", given, output)
