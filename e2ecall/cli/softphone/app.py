"""The terminal screen of the softphone: shows a `Phone` and turns keys into what it does.

Looks at the phone ten times a second rather than being told: what is shown is always what is.
"""

import signal
from typing import ClassVar, Final

from rich.text import Text
from rich.traceback import Traceback
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.events import Key
from textual.widgets import Footer, Input, Static

from e2ecall.cli.softphone import widgets
from e2ecall.cli.softphone.blocking import BlockingScreen
from e2ecall.cli.softphone.conversation import Conversation
from e2ecall.cli.softphone.model import Verdict
from e2ecall.cli.softphone.phone import Phone
from e2ecall.cli.softphone.ringing import RingingScreen
from e2ecall.cli.softphone.settling import Settling

REFRESH: Final = 0.1
"""Seconds between two looks at the phone."""

_ONLY_IN_CALLS: Final = frozenset({"mute", "camera", "screen", "hold", "chat", "block"})
_ONLY_TO_COMPARE: Final = frozenset({"same", "different"})
_ALWAYS: Final = frozenset({"interrupt", "leave_entry"})
"""What is done whatever is shown: it concerns no single call."""


class PhoneApp(App[None]):
    """The screen. It ends when the phone is done, and never ends a call by itself."""

    TITLE = "e2ecall"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None  # or keys would be typed into the entry
    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "same", "Same code"),
        ("n", "different", "Another code"),
        ("m", "mute", "Mute"),
        ("v", "camera", "Camera"),
        ("p", "screen", "Screen"),
        ("h", "hold", "Hold"),
        ("t", "chat", "Text"),
        ("s", "swap", "Other call"),
        ("c", "dial", "Call"),
        ("q", "hang_up", "Hang up"),
        ("q", "leave", "Quit"),
        ("b", "block", "Block"),
        ("escape", "leave_entry", "Back"),
        ("ctrl+c", "interrupt", ""),
        ("ctrl+q", "interrupt", ""),
    ]
    CSS = """
    #title { background: $primary; color: $text; padding: 0 1; }
    #peer { padding: 1 1 0 1; }
    #status, #code, #meters, #quality { padding: 0 1; }
    #meters { padding: 1 1 0 1; }
    #log { border-top: solid $primary; padding: 0 1; height: 1fr; }
    """

    def __init__(self, phone: Phone) -> None:
        super().__init__()
        self._phone = phone
        self._shown: dict[str, Text] = {}
        self._offered: tuple[object, ...] = ()
        self._seen: Conversation | None = None
        self._settling = Settling()
        self._entry_for: Conversation | None = None

    @property
    def takes_keys(self) -> bool:
        """Whether keys count: not right after another call took the place of what was shown."""
        return self._settling.is_over and self._seen is self._phone.current

    def compose(self) -> ComposeResult:
        """Lay the screen out, from top to bottom."""
        yield Static(f"e2ecall   {self._phone.me.address}", id="title", markup=False)
        for name in ("peer", "status", "code", "meters", "quality"):
            yield Static(id=name)
        with VerticalScroll(id="log", can_focus=False):
            yield Static(id="lines")
        entry = Input(id="entry")
        entry.display = False
        yield entry
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look at the phone."""
        self.set_interval(REFRESH, self.show)
        self.show()

    def _fatal_error(self) -> None:
        """Say where the program failed; Textual's own would print all locals, keys among them."""
        self.panic(Traceback(show_locals=False))

    def show(self) -> None:
        """Show the phone as it is now."""
        phone, conversation = self._phone, self._phone.current
        if not self.is_running:  # it is closing: its widgets may be gone before its timer
            return
        if phone.done.is_set():
            self.exit()
            return
        self._notice(conversation)
        if conversation is None:
            self._put("peer", Text("No call", "bold"))
            self._put("status", Text("Waiting for calls and messages. c calls somebody."))
            for name in ("code", "meters", "quality"):
                self._put(name, Text())
            self._put("lines", widgets.lines(phone.lines))
        else:
            model = conversation.model
            self._put("peer", widgets.peer_line(model))
            self._put("status", widgets.status_line(model))
            self._put("code", widgets.code_text(model))
            self._put("meters", widgets.meters(model, *conversation.levels))
            self._put("quality", widgets.quality(model))
            self._put("lines", widgets.lines(model.lines))
        self._announce()
        self._offer_keys()

    def draw_again(self) -> None:
        """Draw all of it: the terminal missed something."""
        if self.is_running:
            self.refresh(layout=True)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's signature
        """Offer the keys that do something now, and no other."""
        conversation = self._phone.current
        if not (self.takes_keys or action in _ALWAYS):
            return False
        if action in _ONLY_IN_CALLS:
            return conversation is not None and conversation.is_placed
        if action in _ONLY_TO_COMPARE:
            return conversation is not None and conversation.model.asks_to_compare
        match action:
            case "swap":
                return self._phone.can_swap
            case "hang_up":
                return conversation is not None
            case "dial" | "leave":
                return conversation is None
            case "leave_entry":
                return self._entry.display
            case _:
                return True

    # --- keys -------------------------------------------------------------------------------------

    def on_key(self, _: Key) -> None:
        """Take a key that means nothing now."""
        self._settling.take_key()

    def action_mute(self) -> None:
        """Mute or unmute."""
        if (conversation := self._phone.current) is not None:
            self._phone.spawn(conversation.toggle_mute)

    def action_camera(self) -> None:
        """Turn the camera on or off."""
        if (conversation := self._phone.current) is not None:
            self._phone.spawn(conversation.toggle_camera)

    def action_screen(self) -> None:
        """Share the screen, or end that."""
        if (conversation := self._phone.current) is not None:
            self._phone.spawn(conversation.toggle_screen)

    def action_hold(self) -> None:
        """Hold or resume."""
        if (conversation := self._phone.current) is not None:
            self._phone.spawn(conversation.toggle_hold)

    def action_same(self) -> None:
        """Say that the codes are the same."""
        if (conversation := self._phone.current) is not None:
            self._phone.spawn(conversation.judge, Verdict.SAME)

    def action_different(self) -> None:
        """Say that the codes differ."""
        if (conversation := self._phone.current) is not None:
            self._phone.spawn(conversation.judge, Verdict.DIFFERENT)

    def action_swap(self) -> None:
        """Go over to the other call."""
        self._phone.spawn(self._phone.swap)

    def action_hang_up(self) -> None:
        """End the call that is shown."""
        if (conversation := self._phone.current) is not None:
            conversation.hang_up()

    def action_block(self) -> None:
        """Ask whether to block the other person, which ends the call."""
        if (conversation := self._phone.current) is not None:
            self.push_screen(BlockingScreen(self._phone, conversation.model.peer))

    def action_leave(self) -> None:
        """End the phone."""
        self._phone.quit()

    def action_interrupt(self) -> None:
        """Do what Ctrl-C does everywhere else: hang up, and end with 130."""
        signal.raise_signal(signal.SIGINT)

    def action_chat(self) -> None:
        """Let the user write to the other person."""
        self._ask("What to write? Enter sends it, Escape goes back.")

    def action_dial(self) -> None:
        """Let the user say whom to call."""
        self._ask("Whom to call? A name, or name@relay.")

    def action_leave_entry(self) -> None:
        """Go back from the entry to the keys."""
        self._entry.display = False
        self._entry.clear()
        self.screen_stack[0].set_focus(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take what was entered: a text for the call it was begun in, or whom to call."""
        text, conversation = event.value.strip(), self._phone.current
        self.action_leave_entry()
        if conversation is not self._entry_for:  # CALL-51
            self._phone.say("What you typed was not sent: something else is shown by now.")
        elif text and conversation is not None and conversation.is_placed:
            self._phone.spawn(conversation.write, text)
        elif text and conversation is None:
            self._phone.spawn(self._phone.place, text)

    # --- showing ----------------------------------------------------------------------------------

    @property
    def _entry(self) -> Input:
        return self.screen_stack[0].query_one("#entry", Input)

    def _notice(self, conversation: Conversation | None) -> None:
        """CALL-50: let no key count for a while where what is shown changed by itself."""
        if conversation is self._seen:
            return
        former, self._seen = self._seen, conversation
        has_ended = former is not None and former not in self._phone.calls
        if has_ended or (conversation is not None and conversation.came_by_itself):
            self._settling.begin()

    def _ask(self, what: str) -> None:
        self._entry_for = self._phone.current
        self._entry.placeholder = what
        self._entry.display = True
        self.screen_stack[0].set_focus(self._entry)  # at once: the next key belongs to it

    def _announce(self) -> None:
        """Show what rings, but never under the fingers of who is typing a text."""
        ringing = self._phone.ringing
        if not ringing or len(self.screen_stack) > 1:
            return
        if self._entry.display:
            self._put("status", Text(f"{ringing[0].caller} calls: Escape, to answer", "bold blink"))
        else:
            self.push_screen(RingingScreen(self._phone, ringing[0]), self._uncover)

    def _uncover(self, was_decided: bool | None) -> None:
        """Show what was covered; keys may still be meant for a call that rings no longer."""
        if not was_decided:
            self._settling.begin()

    def _offer_keys(self) -> None:
        """Have the footer follow where keys came or went."""
        offered = tuple(
            self.check_action(action, ())
            for action in (
                *_ONLY_IN_CALLS,
                *_ONLY_TO_COMPARE,
                "swap",
                "hang_up",
                "leave",
                "leave_entry",
            )
        )
        if offered != self._offered:
            self._offered = offered
            self.refresh_bindings()

    def _put(self, name: str, text: Text) -> None:
        if self._shown.get(name) == text:
            return
        self._shown[name] = text
        base = self.screen_stack[0]
        base.query_one(f"#{name}", Static).update(text)
        if name == "lines":
            base.query_one("#log", VerticalScroll).scroll_end(animate=False)
