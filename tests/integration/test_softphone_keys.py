"""Keys at the softphone while calls come and go by themselves: its screen, and real calls."""

from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import numpy as np
import pytest

import e2ecall
from e2ecall.cli.media import MediaOptions
from e2ecall.cli.softphone import settling
from e2ecall.cli.softphone.app import PhoneApp
from e2ecall.cli.softphone.blocking import BlockingScreen
from e2ecall.cli.softphone.phone import Phone
from e2ecall.cli.softphone.ringing import RingingScreen
from e2ecall.media.files import write_movie
from e2ecall.protocol.messages import Stream
from e2ecall.testing import CollectingSink
from tests.integration.people import PATIENCE, ended, frames, person, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),  # as Textual needs it
]

QUIET = MediaOptions(microphone="off", speaker="off")  # no test listens to the room that it runs in


@asynccontextmanager
async def softphone(client, options=QUIET):
    """Give the phone of a person, its screen, and what presses keys there."""
    async with anyio.create_task_group() as tasks:
        phone = Phone(client, options, tasks)
        tasks.start_soon(phone.take_calls)
        app = PhoneApp(phone)
        async with app.run_test(size=(110, 32)) as pilot:
            yield phone, app, pilot.press
        tasks.cancel_scope.cancel()


async def becomes(condition):
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the screen is looked at as by a person
            await anyio.sleep(0.02)


def rings(app):
    """Tell whether a call rings on the screen, and its keys count."""
    return isinstance(app.screen, RingingScreen) and app.screen.takes_keys


def shows(phone, peer):
    """Tell whether this call is shown, and connected."""
    return (
        phone.current is not None
        and phone.current.model.peer == peer.address
        and phone.current.model.connected_at is not None
    )


def says(phone, text):
    """Tell whether the phone has this line."""
    return any(line.text == text for line in phone.lines)


async def answered(caller, phone, app, press, **sent):
    call = await caller.call(phone.me.address, **sent)
    await becomes(lambda: rings(app))
    await press("a")
    await until(call, e2ecall.Connected)
    await becomes(lambda: shows(phone, caller))
    return call


async def test_a_code_and_a_text_are_for_the_call_they_were_meant_for(
    people, tmp_path, relay, monkeypatch
):
    """CALL-50, CALL-51: who hangs up while the user confirms or writes gets neither for another."""
    async with (
        people() as (alice, bob),
        person(tmp_path, relay, "carol") as carol,
        softphone(bob) as (phone, app, press),
    ):
        first = await answered(alice, phone, app, press)
        second = await answered(carol, phone, app, press)
        with monkeypatch.context() as slow:  # a busy machine takes seconds for three keys
            slow.setattr(settling, "SETTLING", 60.0)
            second.leave()
            await becomes(lambda: shows(phone, alice))
            await press("y", "h", "v")
        assert not any(contact.verified for contact in bob.contacts())
        assert phone.current.call.controls.held
        assert not app.takes_keys
        app._settling.begin()
        await becomes(lambda: app.takes_keys)
        await press("y")
        await becomes(lambda: phone.current.model.verified)
        assert [c.address for c in bob.contacts() if c.verified] == [alice.address]

        second = await answered(carol, phone, app, press)
        await press("t", *"secret")
        second.leave()
        await becomes(lambda: shows(phone, alice))
        await press("enter")
        await becomes(lambda: phone.current.model.lines[-1].text.startswith("What you typed"))
        await phone.current.write("the only one")
        assert (await until(first, e2ecall.Text)).text == "the only one"

        await becomes(lambda: app.takes_keys)
        await press("t", *carol.address.partition("@")[0])
        first.leave()
        await becomes(lambda: phone.current is None)
        await press("enter")
        await becomes(lambda: phone.lines[-1].text.startswith("What you typed"))
        assert not phone.calls


async def test_typing_answers_no_call(people, monkeypatch):
    """CALL-50: a call that rings under typing fingers waits for their pause; then one key counts,
    once; and who was verified is shown so whatever name they were called by.
    """
    async with people() as (alice, bob), softphone(bob) as (phone, app, press):
        with monkeypatch.context() as slow:  # a busy machine takes seconds for some keys
            slow.setattr(settling, "SETTLING", 60.0)
            call = await alice.call(bob.address)
            await becomes(lambda: isinstance(app.screen, RingingScreen))
            await press(*"they are free to read")
            assert phone.ringing
            assert not app.screen.takes_keys
        app.screen._settling.begin()
        await becomes(lambda: rings(app))
        for _ in range(2):
            app.screen.action_answer()
        await until(call, e2ecall.Connected)
        assert len(phone.calls) == 1
        await phone.current.call.confirm_sas()
        await call.hangup()
        await becomes(lambda: phone.current is None and app.takes_keys)
        phone.spawn(phone.place, alice.address.partition("@")[0])
        incoming = await anext(alice.incoming())
        await becomes(lambda: phone.current.is_placed)
        assert phone.current.model.verified
        await incoming.decline()


async def test_keys_while_a_call_is_taken(people, tmp_path, relay, monkeypatch):
    """Hanging up a call that is just being taken ends it, and going to another one waits for it."""
    async with (
        people() as (alice, bob),
        person(tmp_path, relay, "carol") as carol,
        softphone(bob) as (phone, app, press),
    ):
        first = await answered(alice, phone, app, press)
        second = await carol.call(bob.address)
        await becomes(lambda: rings(app))
        accept = e2ecall.client.IncomingCall.accept

        async def slowly(self, **options):
            await anyio.sleep(PATIENCE)
            return await accept(self, **options)

        monkeypatch.setattr(e2ecall.client.IncomingCall, "accept", slowly)
        app.screen.action_answer()
        await becomes(lambda: len(phone.calls) == 2)
        assert not phone.current.is_placed
        phone.spawn(phone.swap)
        phone.current.hang_up()
        assert await ended(second) == (e2ecall.EndReason.DECLINED, True)
        await becomes(lambda: len(phone.calls) == 1)
        assert first.ended is None


async def test_who_rings_is_blocked_by_a_key(people):
    """IDENTITY-16: a key blocks who calls, once that is confirmed; until then it rings on."""
    async with people() as (alice, bob), softphone(bob) as (phone, app, press):
        call = await alice.call(bob.address)
        await becomes(lambda: rings(app))
        await press("b")
        await becomes(lambda: isinstance(app.screen, BlockingScreen))
        assert app.screen.peer == alice.address
        await press("escape")
        await becomes(lambda: rings(app))
        assert call.ended is None
        assert not any(contact.blocked for contact in bob.contacts())
        await press("b")
        await becomes(lambda: isinstance(app.screen, BlockingScreen))
        await press("y")
        assert await ended(call) == (e2ecall.EndReason.DECLINED, True)
        await becomes(lambda: len(app.screen_stack) == 1)
        assert [contact.address for contact in bob.contacts() if contact.blocked] == [alice.address]
        await becomes(lambda: says(phone, f"{alice.address} is blocked."))
        assert not phone.ringing


async def test_who_is_talked_to_is_blocked_by_a_key(people):
    """IDENTITY-16, REACH-05: a key in a call blocks the other person, which ends the call."""
    async with people() as (alice, bob), softphone(bob) as (phone, app, press):
        call = await answered(alice, phone, app, press)
        await press("b")
        await becomes(lambda: isinstance(app.screen, BlockingScreen))
        await press("n")
        await becomes(lambda: len(app.screen_stack) == 1)
        assert call.ended is None
        await press("b")
        await becomes(lambda: isinstance(app.screen, BlockingScreen))
        await press("y")
        assert await ended(call) == (e2ecall.EndReason.HANGUP, True)
        await becomes(lambda: phone.current is None)
        assert [contact.address for contact in bob.contacts() if contact.blocked] == [alice.address]
        await becomes(lambda: says(phone, f"{alice.address} is blocked."))


@pytest.mark.parametrize("from_the_beginning", [False, True])
async def test_the_screen_is_shared_by_a_key(people, tmp_path, from_the_beginning):
    """CALL-31: a key shares the screen beside the camera and ends that, and each is told."""
    film, grey = tmp_path / "film.mp4", np.full((540, 640), 128, np.uint8)
    write_movie(film, ((n / 30, grey) for n in range(300)), np.zeros((960, 2), np.int16), 0.0)
    options = replace(QUIET, screen=str(film))
    async with people() as (alice, bob), softphone(bob, options) as (phone, app, press):
        seen = CollectingSink()
        if not from_the_beginning:  # then what is shared by the key is the same film
            phone.options = replace(options, screen=None)
        call = await answered(alice, phone, app, press, output=seen)
        conversation = phone.current
        if not from_the_beginning:
            assert not conversation.model.own.screen
            conversation._options = options
            await press("p")
        await becomes(lambda: conversation.model.own.screen)
        await frames(seen, Stream.SCREEN, 5)
        assert not seen.of(Stream.CAMERA)
        await press("p")
        await becomes(lambda: not conversation.model.own.screen)
        said = [await until(call, e2ecall.MediaState)]
        while said[-1].screen or not any(state.screen for state in said):
            said.append(await until(call, e2ecall.MediaState))
        await press("p")
        assert (await until(call, e2ecall.MediaState)).screen
        await frames(seen, Stream.SCREEN, len(seen.of(Stream.SCREEN)) + 5)
        await call.hangup()
        await becomes(lambda: phone.current is None)
