"""Two clients of one ticket, with channels to one another."""

import trio

from tests.relay.turnclients import client, ticket

BINDING = bytes.fromhex("000100002112a442") + bytes(12)
FORTH, BACK = 0x4001, 0x4FFF
"""Channel numbers: of the first client to the second, and of the second to the first."""


async def open_pair(stack, addresses, credentials=None):
    """Give two clients with channels to one another, each on its address."""
    pair = []
    for address, credential in zip(addresses, credentials or ticket(), strict=True):
        pair.append(await stack.enter_async_context(client("udp", address, credential)))
    first, second = pair
    assert await first.bind(second.relayed, FORTH) is None
    assert await second.bind(first.relayed, BACK) is None
    return first, second


async def passes(first, second, content=b"data"):
    """Say whether what the first client sends reaches the second within a second."""
    await first.channel_data(FORTH, content)
    with trio.move_on_after(1):
        while True:
            if (await second.channel.receive())[4:] == content:
                return True
    return False
