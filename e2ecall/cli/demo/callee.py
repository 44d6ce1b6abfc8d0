"""The demonstration's callee: registers, waits, reads the text, accepts, records what it decodes.

    python -m e2ecall.cli.demo.callee JOB

An ordinary program over the public API; only its notes (`role`) are special.
"""

import time
from secrets import token_hex

import anyio

from e2ecall import Client, Connected, Ended, Sas
from e2ecall.cli.demo.evidence import Evidence
from e2ecall.cli.demo.job import Job
from e2ecall.cli.demo.picture import pictures, sounds
from e2ecall.cli.demo.recording import RecordingSink
from e2ecall.cli.demo.role import run, say
from e2ecall.media.generated import audio_source, video_source


async def client(job: Job, evidence: Evidence) -> None:
    """Do the whole job; see the module."""
    sink = RecordingSink(job.home)
    async with Client.open(job.home / "store.db", passphrase=token_hex(), relay=job.relay) as me:
        await me.register(job.username)
        evidence.address = me.address
        say("registered", address=me.address)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_read_texts, me, evidence)
            await _answer(me, job, evidence, sink)
            tasks.cancel_scope.cancel()
    evidence.received_pictures = sink.picture_times
    evidence.received_sound_at = sink.sound_at


async def _read_texts(me: Client, evidence: Evidence) -> None:
    async for message in me.messages():
        evidence.texts.append(message.text)
        say("text", sender=message.sender)


async def _answer(me: Client, job: Job, evidence: Evidence, sink: RecordingSink) -> None:
    """Accept the first call and stay in it to its end."""
    say("listening")
    async for incoming in me.incoming():
        say("rings", caller=incoming.caller, verified=incoming.verified)
        evidence.accepted_at = time.monotonic()
        call = await incoming.accept(
            audio=audio_source(sounds(None, job.seed)),
            video=video_source(pictures(None, job.seed, job.caption)),
            output=sink,
        )
        async for event in call.events():
            match event:
                case Sas():
                    evidence.sas, evidence.sas_digits = str(event), event.digits
                    say("sas", code=str(event))
                case Connected():
                    say("connected")
                case Ended():
                    evidence.end_reason = event.reason
                    say("ended", reason=event.reason)
        return


def main() -> None:
    """Run as a process."""
    run(client)


if __name__ == "__main__":
    main()
