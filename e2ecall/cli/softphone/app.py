"""The terminal screen of the softphone: shows a `Phone` and turns keys into what it does.

Looks at the phone ten times a second rather than being told: what is shown is always what is.
"""

import signal
from typing import ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import VerticalScroll
from textual.widgets import Footer, Input, Static

from e2ecall.cli.softphone import widgets
from e2ecall.cli.softphone.model import Verdict
from e2ecall.cli.softphone.phone import Phone
from e2ecall.cli.softphone.ringing import RingingScreen

REFRESH: Final = 0.1
"""Seconds between two looks at the phone."""

_ONLY_IN_CALLS: Final = frozenset({"mute", "camera", "hold", "chat"})
_ONLY_TO_COMPARE: Final = frozenset({"same", "different"})


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
        ("h", "hold", "Hold"),
        ("t", "chat", "Text"),
        ("s", "swap", "Other call"),
        ("c", "dial", "Call"),
        ("q", "hang_up", "Hang up"),
        ("q", "leave", "Quit"),
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

    def show(self) -> None:
        """Show the phone as it is now."""
        phone, conversation = self._phone, self._phone.current
        if phone.done.is_set():
            self.exit()
            return
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

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's signature
        """Offer the keys that do something now, and no other."""
        conversation = self._phone.current
        if action in _ONLY_IN_CALLS:
            return conversation is not None and conversation.is_placed
        if action in _ONLY_TO_COMPARE:
            return conversation is not None and conversation.model.asks_to_compare
        match action:
            case "swap":
                return len(self._phone.calls) > 1
            case "hang_up":
                return conversation is not None
            case "dial" | "leave":
                return conversation is None
            case "leave_entry":
                return self._entry.display
            case _:
                return True

    # --- keys -------------------------------------------------------------------------------------

    def action_mute(self) -> None:
        """Mute or unmute."""
        if (conversation := self._phone.current) is not None:
            self._phone.spawn(conversation.toggle_mute)

    def action_camera(self) -> None:
        """Turn the camera on or off."""
        if (conversation := self._phone.current) is not None:
            self._phone.spawn(conversation.toggle_camera)

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
        """Take what was entered: a text in a call, and whom to call otherwise."""
        text, conversation = event.value.strip(), self._phone.current
        self.action_leave_entry()
        if text and conversation is not None and conversation.is_placed:
            self._phone.spawn(conversation.write, text)
        elif text and conversation is None:
            self._phone.spawn(self._phone.place, text)

    # --- showing ----------------------------------------------------------------------------------

    @property
    def _entry(self) -> Input:
        return self.screen_stack[0].query_one("#entry", Input)

    def _ask(self, what: str) -> None:
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
            self.push_screen(RingingScreen(self._phone, ringing[0]))

    def _offer_keys(self) -> None:
        """Have the footer follow where keys came or went."""
        offered = tuple(
            self.check_action(action, ())
            for action in (*_ONLY_IN_CALLS, *_ONLY_TO_COMPARE, "swap", "hang_up", "leave_entry")
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
