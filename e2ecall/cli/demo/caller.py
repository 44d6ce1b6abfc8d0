"""The demonstration's caller: registers, sends a text, calls, shows its film, hangs up.

    python -m e2ecall.cli.demo.caller JOB

An ordinary program over the public API; only its notes (`role`) are special.
"""

import time
from secrets import token_hex

import anyio

from e2ecall import Call, Client, Connected, Ended, Ringing, Sas
from e2ecall.cli.demo.evidence import Evidence
from e2ecall.cli.demo.job import Job, path_of
from e2ecall.cli.demo.picture import pictures, sounds
from e2ecall.cli.demo.role import run, say
from e2ecall.media.generated import audio_source, video_source


async def client(job: Job, evidence: Evidence) -> None:
    """Do the whole job; see the module."""
    film = pictures(path_of(job.video), job.seed, job.caption)
    sound = sounds(path_of(job.audio), job.seed)
    async with Client.open(job.home / "store.db", passphrase=token_hex(), relay=job.relay) as me:
        await me.register(job.username)
        evidence.address = me.address
        say("registered", address=me.address)
        await me.message(job.peer, job.text)
        evidence.texts.append(job.text)
        say("texted")
        evidence.called_at = time.monotonic()
        call = await me.call(
            job.peer,
            audio=audio_source(sound),
            video=video_source(
                film, on_frame=lambda _number: evidence.sent_pictures.append(time.monotonic())
            ),
        )
        say("calling")
        async with anyio.create_task_group() as tasks:
            async for event in call.events():
                match event:
                    case Ringing():
                        evidence.ringing_at = time.monotonic()
                        say("ringing")
                    case Sas():
                        evidence.sas, evidence.sas_digits = str(event), event.digits
                        say("sas", code=str(event))
                    case Connected():
                        say("connected")
                        tasks.start_soon(_hang_up, call, job.seconds)
                    case Ended():
                        evidence.end_reason = event.reason
                        say("ended", reason=event.reason)
                        tasks.cancel_scope.cancel()


async def _hang_up(call: Call, seconds: float) -> None:
    await anyio.sleep(seconds)
    await call.hangup()


def main() -> None:
    """Run as a process."""
    run(client)


if __name__ == "__main__":
    main()
