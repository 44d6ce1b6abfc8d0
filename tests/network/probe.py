"""Datagrams that tell what a link does to them, between two processes of one machine.

    python -m tests.network.probe receive ADDRESS
    python -m tests.network.probe send ADDRESS PORT COUNT INTERVAL SIZE

The receiver says ``{"port": N}``, and at the end of its stdin the list of ``[number, sent,
arrived]`` in the order of arrival, in seconds of the clock that all processes share.
"""

import json
import selectors
import socket
import struct
import sys
import time

HEADER = struct.Struct("!Id")


def receive(address):
    arrived = []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        selectors.DefaultSelector() as selector,
    ):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 21)
        sock.bind((address, 0))
        print(json.dumps({"port": sock.getsockname()[1]}), flush=True)
        selector.register(sock, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is sock:
                    data = sock.recv(2_048)
                    arrived.append((*HEADER.unpack_from(data), time.monotonic()))
                else:
                    print(json.dumps(arrived), flush=True)
                    return


def send(address, port, count, interval, size):
    start = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(int(count)):
            time.sleep(max(0.0, start + number * float(interval) - time.monotonic()))
            header = HEADER.pack(number, time.monotonic())
            sock.sendto(header.ljust(int(size), b"\0"), (address, int(port)))


if __name__ == "__main__":
    {"receive": receive, "send": send}[sys.argv[1]](*sys.argv[2:])
