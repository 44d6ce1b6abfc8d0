"""What the keys of an epoch hang on (spec/callkeys.md, "Rekeying")."""

import pytest
from msgspec.structs import replace

from e2ecall.protocol.call_events import NewEpoch
from e2ecall.protocol.call_table import CallState, Role
from e2ecall.protocol.callkeys import EpochKeys
from e2ecall.protocol.messages import MediaState, Rekey, RekeyReply, Stream
from e2ecall.secret import Secret


def test_n2_no_key_of_an_epoch_comes_again(kit, talk):
    """N2, CALLKEY-11, SFRAME-10: over many epochs all frame keys, key ids and MAC keys differ."""
    seen = []
    for number in range(6):
        now = kit.now + 11 * number
        if number:
            talk.change_epoch(now)
            assert talk.caller.epoch == talk.callee.epoch == number
        ends = [call._channel.sending for call in (talk.caller, talk.callee)]
        assert ends[0] == ends[1]
        keys = [ends[0].frame_key(role, stream) for role in Role for stream in Stream]
        seen += [key.kid for key in keys] + [key.base_key.expose() for key in keys]
        seen += [ends[0].secret.expose()[:32], ends[0].transcript]
        message = MediaState(bytes(16), 0, True, False, False, False, False, kit.unsigned)
        seen += [ends[0].mac(role, message) for role in Role]
    assert len(set(seen)) == len(seen)


BEFORE = EpochKeys(b"t" * 64, 4, Secret(b"e" * 64))
X25519, MLKEM = Secret(b"x" * 32), Secret(b"k" * 32)
REKEY = Rekey(b"i" * 16, 3, 5, b"s" * 32, b"k" * 1184, bytes(64))
REPLY = RekeyReply(b"i" * 16, 7, 5, b"r" * 32, b"c" * 1088, bytes(64))


@pytest.mark.parametrize("lacking", ["X25519", "ML-KEM", "epoch secret", "transcript"])
def test_n3_each_half_and_the_old_secret_are_needed(lacking):
    """N3, CALLKEY-11: who lacks X25519, ML-KEM or the old epoch's secret alone has another key."""
    other = Secret(b"?" * 32)
    before = {
        "epoch secret": EpochKeys(BEFORE.transcript, 4, Secret(b"?" * 64)),
        "transcript": EpochKeys(b"?" * 64, 4, BEFORE.secret),
    }.get(lacking, BEFORE)
    x25519 = other if lacking == "X25519" else X25519
    mlkem = other if lacking == "ML-KEM" else MLKEM
    right = BEFORE.following(REKEY, REPLY, X25519, MLKEM)
    assert before.following(REKEY, REPLY, x25519, mlkem).secret != right.secret
    assert right.epoch == 5


def test_the_transcript_covers_both_messages():
    """CALLKEY-10: it changes with each field of both bodies, and not with counters or MACs."""
    right = BEFORE.following(REKEY, REPLY, X25519, MLKEM)
    seen = {right.transcript}
    for name, value in (("epoch", 6), ("x25519_share", b"?" * 32), ("mlkem_key", b"?" * 1184)):
        changed = replace(REKEY, **{name: value})
        seen.add(BEFORE.following(changed, REPLY, X25519, MLKEM).transcript)
    for name, value in (("epoch", 6), ("x25519_share", b"?" * 32), ("mlkem_ciphertext", b"?" * 99)):
        changed = replace(REPLY, **{name: value})
        seen.add(BEFORE.following(REKEY, changed, X25519, MLKEM).transcript)
    assert len(seen) == 7
    copies = (replace(message, counter=9, mac=b"m" * 64) for message in (REKEY, REPLY))
    assert BEFORE.following(*copies, X25519, MLKEM) == right


def test_fresh_shares_for_every_epoch(talk, kit):
    """CALLKEY-11: no two Rekeys, and no two answers, show the same share, key or ciphertext."""
    seen = set()
    for number in range(3):
        talk.change_epoch(kit.now + 11 * number)
        seen |= {talk.rekey.x25519_share, talk.rekey.mlkem_key}
        seen |= {talk.rekey_reply.x25519_share, talk.rekey_reply.mlkem_ciphertext}
    assert len(seen) == 12


def test_the_code_and_the_media_stay(talk, kit):
    """CALL-20: a new epoch changes neither the spoken code nor anything else that is shown."""
    code = talk.caller.sas
    talk.change_epoch()
    assert talk.caller.sas == talk.callee.sas == code
    (shown,) = talk.callee.events()
    assert isinstance(shown, NewEpoch)
    assert talk.caller.state is talk.callee.state is CallState.CONNECTED
