"""The softphone as a person has it: keys and a screen at real terminals, a real relay between."""

import os
import signal
import time

import pytest

from e2ecall.cli.softphone.settling import SETTLING

from .terminals import OPEN_TTY, UNTOLD

WAITING = "Waiting for calls"
COMPARE = "Is it the same at both ends?"

# No test listens to the room that it runs in.
QUIET = ("--microphone", "off", "--speaker", "off")
HELD = "░  have put the call on hold"
"""Beside their meter; the lines below it go on saying what was."""


def emoji(terminal):
    """Return the line above the digits, which shows the code."""
    place = next(n for n, line in enumerate(terminal.lines) if "or as digits" in line)
    return terminal.lines[place - 1].strip(), terminal.lines[place].strip()


@pytest.fixture
def talking(open_terminal, alice, bob):
    """Give the terminals of two people who talk, caller first."""

    def begun(*options, **environment):
        callee = open_terminal("listen", *QUIET, *bob.options)
        callee.wait_for(WAITING)
        caller = open_terminal("call", "bobby", *QUIET, *options, *alice.options, **environment)
        callee.wait_for("Somebody calls", alice.address)
        callee.press("a")
        for terminal in (caller, callee):
            terminal.wait_for("Connected")
        return caller, callee

    return begun


def test_a_call(open_terminal, relay, tmp_path, film):
    """Two people register, call, compare, mute, write and hang up, with nothing but terminals."""
    stores = {}
    for name in ("dora", "emil"):
        stores[name] = ["--store", tmp_path / name / "s.db"]
        terminal = open_terminal("register", name, "--relay", relay, *stores[name])
        for question in ("New passphrase", "again"):
            terminal.wait_for(question)
            terminal.press("some words\r")
        terminal.wait_for(f"You are {name}@")
        assert terminal.finish() == 0

    def unlocked(*arguments):
        terminal = open_terminal(*arguments)
        terminal.wait_for("Passphrase")
        terminal.press("some words\r")
        return terminal

    callee = unlocked("listen", "--once", *QUIET, *stores["emil"])
    callee.wait_for(WAITING, "emil@")
    caller = unlocked("call", "emil", "--audio", film, "--speaker", "off", *stores["dora"])
    caller.wait_for("It rings", "emil@", "not verified")
    callee.wait_for("Somebody calls", "dora@", "not verified")
    callee.press("a")
    for terminal in (caller, callee):
        terminal.wait_for("Connected", COMPARE, "Same code", "Another code")
    assert emoji(caller) == emoji(callee)
    assert len(emoji(caller)[0].split("   ")) == 4
    for terminal in (caller, callee):
        terminal.press("y")
        terminal.wait_for("✔ verified", "You compared it")
        terminal.wait_gone("Same code")

    callee.wait_for("They ██")  # noise of the film comes through the whole way
    caller.press("m")
    caller.wait_for("microphone off")
    callee.wait_for("Their microphone is off", "They ░")
    caller.press("m")
    callee.wait_for("Their microphone is on", "They ██")

    callee.press("t")
    callee.wait_for("What to write?")
    callee.press("mhq is no key here\r")
    callee.wait_for("you: mhq is no key here")
    caller.wait_for("emil@", ": mhq is no key here")
    caller.wait_for("Quality: ", "kbit/s")

    caller.press("q")
    assert caller.finish() == 0
    assert callee.finish() == 0
    for terminal in (caller, callee):
        assert terminal.is_as_before()
        assert "The call has ended after 0" in terminal.text
        assert "Connected" not in terminal.text


def test_camera(talking, film):
    """The camera is off until its key is pressed, goes off by the same key, and on again."""
    caller, callee = talking("--video", film)
    caller.wait_for("camera on")
    callee.wait_for("Their picture is here.")
    for state in ("off", "on"):
        caller.press("v")
        callee.wait_for(f"their camera {state}", f"  microphone on, camera {state}")


def test_another_code(talking, bob):
    """Who says that the other end shows another code ends the call, and is told what it means."""
    caller, callee = talking()
    caller.wait_for(COMPARE)
    caller.press("n")
    assert caller.finish() == 1
    assert f"{bob.address} sees another code" in caller.text
    assert "somebody between you may be listening" in caller.text
    callee.wait_for(WAITING)


def test_declining(open_terminal, bob, carol):
    """A call is declined by its key; the phone waits for the next one, but for --once."""
    for options in ((), ("--once",)):
        callee = open_terminal("listen", *options, *QUIET, *bob.options)
        callee.wait_for(WAITING)
        caller = open_terminal("call", "bobby", *QUIET, *carol.options)
        callee.wait_for("Somebody calls")
        callee.press("d")
        assert caller.finish() == 1
        assert "the call was declined" in caller.text
        if not options:
            callee.wait_gone("Somebody calls")
            callee.wait_for(WAITING)
            callee.press("q")
        assert callee.finish() == 0


def test_giving_up(open_terminal, bob, carol):
    """A caller who gives up takes the call from the other screen; one who rings on does not."""
    callee = open_terminal("listen", *QUIET, *bob.options)
    callee.wait_for(WAITING)
    caller = open_terminal("call", "bobby", *QUIET, *carol.options)
    callee.wait_for("Somebody calls")
    caller.wait_for("It rings")
    caller.press("q")
    assert caller.finish() == 0
    callee.wait_gone("Somebody calls")
    callee.wait_for(f"{carol.address} called and gave up.")


def test_calling_from_the_screen(open_terminal, bob, carol):
    """The waiting phone calls a person who is named, and says when there is no such person."""
    callee = open_terminal("listen", "--accept", "carol", *QUIET, *bob.options)
    callee.wait_for(WAITING)
    phone = open_terminal("listen", *QUIET, *carol.options)
    phone.wait_for(WAITING)
    phone.press("c")
    phone.wait_for("Whom to call?")
    phone.press("nobody_here\r")
    phone.wait_for("there is no such user", "c Call")  # keys count again
    phone.press("c")
    phone.wait_for("Whom to call?")
    phone.press("bobby\r")
    phone.wait_for("Connected", bob.address)
    phone.press("q")
    phone.wait_for(WAITING, "The call has ended")


def test_call_waiting(talking, open_terminal, alice, carol):
    """A second call is answered beside the first, both can be gone to, and one of them ended."""
    caller, callee = talking()
    third = open_terminal("call", "bobby", *QUIET, *carol.options)
    callee.wait_for("Somebody calls", carol.address, f"You are talking to {alice.address}")
    callee.wait_for("End the other and answer")
    callee.press("a")
    callee.wait_for(carol.address, "Connected", "Other call")
    caller.wait_for(HELD)
    callee.press("s")
    callee.wait_for(alice.address, "Connected")
    caller.wait_gone(HELD)
    third.wait_for(HELD)
    caller.press("q")
    assert caller.finish() == 0
    callee.wait_for(carol.address, "on hold", "h Hold")
    time.sleep(1.5 * SETTLING)  # CALL-50: as the call was not gone to, no key counts at first
    callee.press("h")
    third.wait_gone(HELD)
    third.press("q")
    assert third.finish() == 0
    callee.wait_for(WAITING)


def test_ending_a_call_for_another(talking, open_terminal, carol):
    """A second call is answered instead of the first, which is over then."""
    caller, callee = talking()
    third = open_terminal("call", "bobby", *QUIET, *carol.options)
    callee.wait_for("Somebody calls")
    callee.press("e")
    callee.wait_for(carol.address, "Connected")
    third.wait_for("Connected")
    assert caller.finish() == 1
    assert "they are in another call" in caller.text


def test_a_text_under_way_takes_no_call(talking, open_terminal, carol, alice):
    """While a text is typed a call that rings is told of, and its keys stay letters."""
    caller, callee = talking()
    callee.press("t")
    callee.wait_for("What to write?")
    third = open_terminal("call", "bobby", *QUIET, *carol.options)
    callee.wait_for(f"{carol.address} calls: Escape, to answer")
    callee.press("ade")
    callee.press("\r")
    callee.wait_for("you: ade", "Somebody calls")
    caller.wait_for(": ade")
    callee.press("d")
    assert third.finish() == 1
    assert "on hold" not in caller.text


@pytest.mark.parametrize("number", [signal.SIGTERM, "key"])
def test_ending_from_outside(talking, number):
    """Ctrl-C as a key, and signals, hang up, give the terminal back and tell by the exit code."""
    caller, callee = talking()
    if number == "key":
        caller.press("\x03")
        number = signal.SIGINT
    else:
        os.kill(caller.process.pid, number)
    assert caller.finish() == 128 + number
    assert caller.is_as_before()
    assert "Traceback" not in caller.text
    callee.wait_for(WAITING, "The call has ended")


@pytest.mark.parametrize("script", [OPEN_TTY, UNTOLD])
def test_a_terminal_that_goes_away(talking, script):
    """CALL-52: whose window is closed is not heard any more: the call ends, and the program."""
    caller, callee = talking(script=script)
    caller.vanish()
    callee.wait_for(WAITING, "The call has ended")
    caller.process.wait(timeout=60)


def test_a_terminal_that_is_stuck(talking):
    """CALL-52: a terminal that takes nothing for a while neither ends nor freezes the call; its
    keys count, and when it takes something again it shows what is.
    """
    caller, callee = talking()
    caller.jam()
    caller.press("m")
    callee.wait_for("Their microphone is off")
    callee.press("t")
    callee.wait_for("What to write?")
    callee.press("can you see this?\r")
    callee.wait_for("you: can you see this?")
    caller.press("m")
    callee.wait_for("Their microphone is on")
    caller.wait_for("Connected", "can you see this?", "Mute")
    caller.press("q")
    assert caller.finish() == 0
    callee.wait_for(WAITING, "The call has ended")


def test_without_a_screen(open_terminal, alice, bob):
    """By --plain, and on a terminal that can do nothing, there are lines and questions instead."""
    callee = open_terminal("listen", "--plain", *bob.options)
    callee.wait_for("Listening as")
    caller = open_terminal("call", "bobby", *alice.options, TERM="dumb")
    callee.wait_for("Take it? Type y or n.")
    callee.press("n\r")
    assert caller.finish() == 1
    for terminal in (caller, callee):
        assert b"\x1b[?1049h" not in terminal.raw
