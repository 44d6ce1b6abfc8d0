"""A person in a process of its own: commands come in on stdin, events go out, as lines of JSON.

    python -m tests.integration.peer BACKEND STORE RELAY [CA]

Commands: ``{"do": "register", "name": ...}``, ``message`` (to, text), ``call`` (to, video),
``accept`` (video), ``decline``, ``hangup``, ``stats``. Each is answered by ``done`` or ``error``;
what happens by itself is told in between. The end of stdin closes the client.
"""

import json
import sys
from dataclasses import asdict

import anyio

import e2ecall
from tests.integration.people import media


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


class Peer:
    def __init__(self, client, tasks):
        self.client, self.tasks = client, tasks
        self.call = self.incoming = self.output = None

    def listen(self):
        self.tasks.start_soon(self.read_calls)
        self.tasks.start_soon(self.read_texts)

    async def read_calls(self):
        async for incoming in self.client.incoming():
            self.incoming = incoming
            say("incoming", caller=incoming.caller, video=incoming.wants_video)

    async def read_texts(self):
        async for text in self.client.messages():
            say("text", sender=text.sender, text=text.text)

    async def follow(self, call):
        async for event in call.events():
            say(type(event).__name__, **asdict(event))

    def media(self, video):
        arguments = media(video)
        self.output = arguments["output"]
        return arguments

    async def register(self, name):
        await self.client.register(name)
        self.listen()
        return {"address": self.client.address}

    async def message(self, to, text):
        await self.client.message(to, text)

    async def place(self, to, video=True):
        self.call = await self.client.call(to, **self.media(video))
        self.tasks.start_soon(self.follow, self.call)

    async def accept(self, video=True):
        self.call = await self.incoming.accept(**self.media(video))
        self.tasks.start_soon(self.follow, self.call)

    async def decline(self):
        await self.incoming.decline()

    async def hangup(self):
        await self.call.hangup()

    async def stats(self):
        frames, counted = self.output.frames, self.call.media.stats()
        sent = {stream: about.frames for stream, about in counted.sent.items()}
        return {
            "frames": [sum(f.stream == stream for f in frames) for stream in (0, 1)],
            "sent": [sent.get(stream, 0) for stream in (0, 1)],
            "refused": counted.refused,
        }

    async def obey(self, do, **arguments):
        command = self.place if do == "call" else getattr(self, do)
        try:
            answer = await command(**arguments)
        except e2ecall.E2ECallError as error:
            say("error", kind=type(error).__name__, text=str(error))
        else:
            say("done", **(answer or {}))


async def main(store, relay, ca=None, kind=Peer):
    try:
        async with (
            e2ecall.Client.open(store, passphrase="of a peer", relay=relay, ca=ca) as client,
            anyio.create_task_group() as tasks,
        ):
            peer = kind(client, tasks)
            if client.is_registered:
                peer.listen()
            say("open", registered=client.is_registered)
            async for line in anyio.wrap_file(sys.stdin):
                await peer.obey(**json.loads(line))
            tasks.cancel_scope.cancel()
    except e2ecall.E2ECallError as error:
        say("error", kind=type(error).__name__, text=str(error))
        sys.exit(1)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[2:], backend=sys.argv[1])
