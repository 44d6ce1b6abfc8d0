"""Take pictures of the softphone's screens: real calls through a real relay, no terminal.

One person has the screen, two others call them. Run by `make screenshots`; a test does it too.
"""

import re
import sys
import tempfile
import wave
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import anyio

import e2ecall
from e2ecall.cli.media import NO_DEVICE, MediaOptions
from e2ecall.cli.softphone.app import PhoneApp
from e2ecall.cli.softphone.phone import Phone
from e2ecall.cli.softphone.ringing import RingingScreen
from e2ecall.media.voice import RATE, Voice
from e2ecall.testing import running_relay, speech_like_sound

SIZE: Final = (100, 28)
PATIENCE: Final = 60.0
"""Seconds that a scene may take to come about."""

_FONTS: Final = re.compile(r"@font-face \{.*?\}", re.DOTALL)


class Camera:
    """Waits for a scene, and takes its picture."""

    def __init__(self, phone: Phone, app: PhoneApp, folder: Path) -> None:
        self.phone = phone
        self.app = app
        self._folder = folder

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a scene; raises TimeoutError where it does not come."""
        with anyio.fail_after(PATIENCE):
            while not condition():
                await anyio.sleep(0.05)

    async def take(self, name: str) -> None:
        """Write what is on the screen after two more looks at the phone."""
        await anyio.sleep(0.3)
        taken = anyio.Event()
        self.app.call_later(self._write, name, taken)  # Textual draws in its own context only
        with anyio.fail_after(PATIENCE):
            await taken.wait()

    def _write(self, name: str, taken: anyio.Event) -> None:
        drawn = self.app.export_screenshot(title="e2ecall")
        # Whoever looks at the picture fetches no font from somewhere.
        picture = "\n".join(line.rstrip() for line in _FONTS.sub("", drawn).splitlines())
        (self._folder / f"{name}.svg").write_text(picture + "\n", encoding="utf-8")
        taken.set()


async def take_pictures(folder: Path) -> None:
    """Write the pictures into ``folder``."""
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(running_relay())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        alice, bob, carol = [
            await stack.enter_async_context(_person(scratch, relay.url, name))
            for name in ("alice", "bob", "carol")
        ]
        sound = scratch / "voice.wav"
        _write_voice(sound)
        async with anyio.create_task_group() as tasks:
            phone = Phone(bob, MediaOptions(audio=sound, speaker=NO_DEVICE), tasks)
            app = PhoneApp(phone)
            for work in (phone.take_calls, phone.take_messages):
                tasks.start_soon(work)
            tasks.start_soon(partial(app.run_async, headless=True, size=SIZE))
            camera = Camera(phone, app, folder)
            await camera.until(lambda: app.is_running)
            await _first_call(camera, alice)
            await _second_call(camera, carol)
            phone.quit()
            await camera.until(lambda: not app.is_running)
            tasks.cancel_scope.cancel()


async def _first_call(camera: Camera, alice: e2ecall.Client) -> None:
    phone, app = camera.phone, camera.app
    await alice.message("bob", "Are you there?")
    await camera.until(lambda: bool(phone.lines))
    await camera.take("waiting")
    call = await alice.call("bob", audio=speech_like_sound(1))
    await camera.until(lambda: can_answer(app))
    await camera.take("incoming")
    app.simulate_key("a")
    await camera.until(lambda: phone.current is not None and phone.current.model.asks_to_compare)
    await camera.take("compare")
    app.simulate_key("y")
    await call.write("Same here. How are you?")
    await camera.until(
        lambda: (
            phone.current is not None
            and phone.current.model.verified
            and phone.current.model.quality is not None
        )
    )
    app.simulate_key("m")
    await camera.until(lambda: phone.current is not None and phone.current.model.own.muted)
    await camera.take("talking")


async def _second_call(camera: Camera, carol: e2ecall.Client) -> None:
    phone, app = camera.phone, camera.app
    second = await carol.call("bob", audio=speech_like_sound(2))
    await camera.until(lambda: can_answer(app))
    await camera.take("call-waiting")
    app.simulate_key("a")
    await camera.until(lambda: len(phone.calls) == 2 and phone.calls[0].model.own.held)
    app.simulate_key("s")
    await camera.until(lambda: phone.calls[0].model.own.held and not phone.calls[1].model.own.held)
    await second.hangup()
    await camera.until(lambda: len(phone.calls) == 1 and app.takes_keys)
    app.simulate_key("q")
    await camera.until(lambda: not phone.calls)
    await camera.take("after")


def can_answer(app: PhoneApp) -> bool:
    """Tell whether a call rings on the screen, and its keys count."""
    return isinstance(app.screen, RingingScreen) and app.screen.takes_keys


@asynccontextmanager
async def _person(folder: Path, relay: str, name: str) -> AsyncIterator[e2ecall.Client]:
    store = folder / f"{name}.db"
    async with e2ecall.Client.open(store, passphrase=f"of {name}", relay=relay) as client:
        await client.register(name)
        yield client


def _write_voice(path: Path) -> None:
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, RATE, 0, "NONE", ""))
        sound.writeframes(Voice(3).samples(0, 60 * RATE).tobytes())


if __name__ == "__main__":
    anyio.run(take_pictures, Path(sys.argv[1]), backend="asyncio")
