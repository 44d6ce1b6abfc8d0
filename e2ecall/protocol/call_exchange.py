"""The key exchanges of a call (spec/callkeys.md): what each end draws and derives.

Shares and secrets only. When a message may be sent or believed is `e2ecall.protocol.call`.
"""

from dataclasses import dataclass
from typing import Self

from e2ecall.crypto.mlkem import MLKEM768, KEMKeyPair
from e2ecall.crypto.random import generate_secret
from e2ecall.crypto.x25519 import X25519KeyPair
from e2ecall.protocol.call_channel import UNSIGNED
from e2ecall.protocol.callkeys import CallKeys, EpochKeys, Party, commitment, transcript_hash
from e2ecall.protocol.messages import (
    CALL_ID_BYTES,
    Candidate,
    MediaDescription,
    Offer,
    Path,
    PathReply,
    Rekey,
    RekeyReply,
    Ringing,
)
from e2ecall.secret import Secret
from relay.wire.messages import TurnCredential

_SEED_BYTES = 32
_NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class CallerSecrets:
    """Everything random of one Offer. Use it for one `Call.place` and never again (CALL-02).

    ``nonce`` stays here until a Ringing came in: whoever knows it earlier can choose the code.
    """

    call_id: bytes
    x25519: X25519KeyPair
    mlkem: KEMKeyPair
    seed: Secret
    nonce: Secret

    @classmethod
    def generate(cls) -> Self:
        """Draw fresh values."""
        return cls(
            call_id=generate_secret(CALL_ID_BYTES).expose(),
            x25519=X25519KeyPair.generate(),
            mlkem=MLKEM768.generate(),
            seed=generate_secret(_SEED_BYTES),
            nonce=generate_secret(_NONCE_BYTES),
        )

    def offer(
        self,
        caller: Party,
        callee: Party,
        *,
        media: MediaDescription,
        wants_video: bool,
        reply_box: bytes,
    ) -> Offer:
        """Return the Offer that shows the shares and commits to the nonce."""
        return Offer(
            call_id=self.call_id,
            x25519_share=self.x25519.public,
            mlkem_key=self.mlkem.public,
            seed=self.seed.expose(),
            commitment=commitment(self.call_id, caller, callee, self.nonce.expose()),
            media=media,
            wants_video=wants_video,
            reply_box=reply_box,
        )

    def derive(self, caller: Party, callee: Party, offer: Offer, ringing: Ringing) -> CallKeys:
        """Return the call's keys.

        Raises:
            RemoteProtocolError: BAD_POINT, where the callee's share is none.
        """
        return CallKeys.derive(
            transcript_hash(caller, callee, offer, ringing),
            self.x25519.exchange(ringing.x25519_share),
            MLKEM768.decapsulate(self.mlkem.seed, ringing.mlkem_ciphertext),
            self.seed,
        )


@dataclass(frozen=True, slots=True)
class CalleeSecrets:
    """The callee's shares for one Offer, Rekey or Path, and the two secrets they agree on with it.

    Use it for one `Call.ring`, `Call.answer_rekey` or `Call.answer_path` and never again.
    """

    x25519_share: bytes
    mlkem_ciphertext: bytes
    x25519_secret: Secret
    mlkem_secret: Secret

    @classmethod
    def generate(cls, shares: Offer | Rekey | Path) -> Self:
        """Draw a fresh X25519 key and encapsulate to the caller's ML-KEM-768 key.

        Raises:
            RemoteProtocolError: BAD_POINT or BAD_KEM_KEY; the message cannot be answered.
        """
        key = X25519KeyPair.generate()
        x25519_secret = key.exchange(shares.x25519_share)
        mlkem_secret, ciphertext = MLKEM768.encapsulate(shares.mlkem_key)
        return cls(key.public, ciphertext, x25519_secret, mlkem_secret)

    def derive(self, caller: Party, callee: Party, offer: Offer, ringing: Ringing) -> CallKeys:
        """Return the call's keys; ``ringing`` must carry this object's shares."""
        return CallKeys.derive(
            transcript_hash(caller, callee, offer, ringing),
            self.x25519_secret,
            self.mlkem_secret,
            Secret(offer.seed),
        )

    def reply(self, rekey: Rekey, counter: int) -> RekeyReply:
        """Return the answer to a Rekey that shows these shares, without its MAC."""
        share, ciphertext = self.x25519_share, self.mlkem_ciphertext
        return RekeyReply(rekey.call_id, counter, rekey.epoch, share, ciphertext, UNSIGNED)

    def path_reply(
        self,
        path: Path,
        counter: int,
        media: MediaDescription,
        turn: TurnCredential,
        candidates: tuple[Candidate, ...],
    ) -> PathReply:
        """Return the answer to a Path that shows these shares, without its MAC."""
        return PathReply(
            path.call_id,
            counter,
            path.epoch,
            self.x25519_share,
            self.mlkem_ciphertext,
            media,
            turn,
            candidates,
            UNSIGNED,
        )

    def following(
        self, before: EpochKeys, first: Rekey | Path, reply: RekeyReply | PathReply
    ) -> EpochKeys:
        """Return the next epoch; ``reply`` must carry this object's shares."""
        return before.following(first, reply, self.x25519_secret, self.mlkem_secret)


@dataclass(frozen=True, slots=True)
class RekeySecrets:
    """The caller's shares for one new epoch.

    Use it for one `Call.rekey` or one `Call.replace_path` and never again.
    """

    x25519: X25519KeyPair
    mlkem: KEMKeyPair

    @classmethod
    def generate(cls) -> Self:
        """Draw fresh shares."""
        return cls(X25519KeyPair.generate(), MLKEM768.generate())

    def rekey(self, call_id: bytes, counter: int, epoch: int) -> Rekey:
        """Return the Rekey that shows these shares, without its MAC."""
        return Rekey(call_id, counter, epoch, self.x25519.public, self.mlkem.public, UNSIGNED)

    def path(self, call_id: bytes, counter: int, epoch: int, media: MediaDescription) -> Path:
        """Return the Path that shows these shares, without its MAC."""
        keys = self.x25519.public, self.mlkem.public
        return Path(call_id, counter, epoch, *keys, media, UNSIGNED)

    def following(
        self, before: EpochKeys, first: Rekey | Path, reply: RekeyReply | PathReply
    ) -> EpochKeys:
        """Return the next epoch.

        Raises:
            RemoteProtocolError: BAD_POINT, where the callee's share is none.
        """
        return before.following(
            first,
            reply,
            self.x25519.exchange(reply.x25519_share),
            MLKEM768.decapsulate(self.mlkem.seed, reply.mlkem_ciphertext),
        )
