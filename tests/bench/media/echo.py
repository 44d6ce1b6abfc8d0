"""A server that does nothing but send each datagram back: ``python -m tests.bench.media.echo``.

What the generator reaches against it, it could reach against any server that is faster than those
to be measured. Prints its port; ends when its standard input does.
"""

import select
import socket
import sys

import numpy as np

from tests.bench.media import mmsg
from tests.bench.media.clients import RECEIVE_BUFFER, SO_RCVBUFFORCE
from tests.bench.media.traffic import BATCH

SLOT = 2048
ADDRESS_SIZE = 16


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind(("127.0.0.1", 0))
        print(sock.getsockname()[1], flush=True)
        serve(sock)


def serve(sock: socket.socket) -> None:
    """Send back what comes until standard input ends."""
    data, names = np.zeros((BATCH, SLOT), np.uint8), np.zeros((BATCH, ADDRESS_SIZE), np.uint8)
    vectors, headers = np.zeros(BATCH, mmsg.IOVEC), np.zeros(BATCH, mmsg.MMSGHDR)
    vectors["base"] = mmsg.addresses(data)
    headers["vector"], headers["vector_length"] = mmsg.addresses(vectors), 1
    headers["name"] = mmsg.addresses(names)
    while True:
        vectors["length"], headers["name_length"] = SLOT, ADDRESS_SIZE
        count = mmsg.receive(sock.fileno(), headers)
        if not count:
            if select.select([sock, sys.stdin], [], [])[0] == [sys.stdin]:
                return
            continue
        vectors["length"][:count] = headers["length"][:count]
        mmsg.send(sock.fileno(), headers[:count])


if __name__ == "__main__":
    main()
