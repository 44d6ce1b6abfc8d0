"""Who is which end of ICE and DTLS (spec/media.md): fixed by the call, never negotiated."""

import pytest

from e2ecall.protocol.messages import MediaDescription
from tests.media.peers import call

pytestmark = pytest.mark.anyio


async def test_roles_are_the_calls(turn):
    """MEDIA-11: the caller is ICE controlling and DTLS client, the callee neither."""
    async with call(turn) as pair:
        await pair.connected()
        roles = [
            (
                session._path.ice._connection.ice_controlling,
                session._path.ice._role_set,
                session._path.dtls._role,
            )
            for session in (pair.caller.peer._session, pair.callee.peer._session)
        ]
    assert roles == [(True, True, "client"), (False, True, "server")]


def test_no_role_is_negotiated():
    """MEDIA-11: a description has no place in which an end could ask for a role."""
    assert MediaDescription.__struct_fields__ == ("fingerprint", "ice_ufrag", "ice_pwd", "streams")
