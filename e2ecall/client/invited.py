"""Taking an invitation up (spec/reach.md, "Invitations"): the identity pinned, its owner told.

What is stored of it is `e2ecall.client.tokens`; its owner's half is there and in `receiving`.
"""

from dataclasses import replace

from e2ecall.client.services import Services
from e2ecall.protocol.invitation import InvitationLink
from e2ecall.protocol.messages import PayloadKind
from relay.wire.names import Address
from relay.wire.records import PreKeyBundle


async def take_up(services: Services, link: InvitationLink) -> None:
    """Pin whom the link names, and tell them with its token that it was taken up.

    A cancelled or failed attempt can be repeated.

    Raises:
        LocalProtocolError: it has expired.
        NotReachableError: somebody else has used it, or it was withdrawn.
        IdentityChangedError: the person is known, or shown by their relay, as somebody else.
        ConnectionFailedError: their relay cannot be reached.
    """
    sessions = services.sessions
    known = await sessions.begin_invited(link)
    async with services.anonymous_line(link.address) as line:
        # REACH-18: here the relay says whether the token is good; to Send it never does.
        bundle = await line.fetch_bundle(link.address, link.token)

        async def fetched(_address: Address, _token: bytes | None) -> PreKeyBundle:
            return bundle

        sealed = await sessions.seal(
            link.address, PayloadKind.INTRODUCTION, link.token, fetch=fetched, give_token=True
        )
        await line.deliver(replace(sealed, token=link.token), None)
        await sessions.use_invited(link, known)
