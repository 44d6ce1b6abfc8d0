"""The screen of a call that comes in: answer, decline, block, and what becomes of another call."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from e2ecall.cli.softphone.blocking import BlockingScreen
from e2ecall.cli.softphone.settling import Settling
from e2ecall.cli.softphone.widgets import ringing_text
from e2ecall.client import IncomingCall

if TYPE_CHECKING:
    from e2ecall.cli.softphone.phone import Phone


class RingingScreen(ModalScreen[bool]):
    """One call that rings. It closes itself when the call rings no longer.

    It returns whether the user decided.
    It comes by itself, maybe under typing fingers: its keys count after a moment (CALL-50).
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        ("a", "answer", "Answer"),
        ("e", "answer_and_end", "End the other and answer"),
        ("d", "decline", "Decline"),
        ("b", "block", "Block"),
    ]

    CSS = """
    RingingScreen { align: center middle; }
    RingingScreen > Vertical {
        width: 60; max-width: 100%; height: auto; padding: 1 2; border: heavy $warning;
        background: $surface;
    }
    RingingScreen Static { width: 100%; text-align: center; }
    """

    def __init__(self, phone: "Phone", incoming: IncomingCall) -> None:
        super().__init__()
        self.incoming = incoming
        self._phone = phone
        self._settling = Settling()
        self._is_decided = False
        self.takes_keys = False
        """Whether the keys count, and are shown."""

    def compose(self) -> ComposeResult:
        """Show who calls."""
        with Vertical() as box:
            box.border_title = "One moment"
            yield Static(ringing_text(self.incoming))
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Look for the end of the ringing."""
        self._settling.begin()
        self.set_interval(0.1, self._look)

    def on_key(self, _: Key) -> None:
        """Take a key that means nothing here."""
        self._settling.take_key()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's signature
        """Offer what can be done now, and to end another call only where one goes on."""
        return self.takes_keys and (self.incoming.other is not None or action != "answer_and_end")

    def action_answer(self) -> None:
        """Take the call; one that goes on is put on hold."""
        self._decide(self._phone.answer, self.incoming)

    def action_answer_and_end(self) -> None:
        """Take the call and end the one that goes on."""
        self._decide(self._phone.answer, self.incoming, True)

    def action_decline(self) -> None:
        """Do not take it."""
        self._decide(self._phone.decline, self.incoming)

    def action_block(self) -> None:
        """Ask whether to block who calls; it rings on until then."""
        self.app.push_screen(BlockingScreen(self._phone, self.incoming.caller), self._leave)

    def _leave(self, is_blocked: bool | None) -> None:
        self._is_decided = self._is_decided or bool(is_blocked)

    def _decide(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        """Do one thing: the screen stays for a moment, and a key may come twice."""
        if not self._is_decided:
            self._is_decided = True
            self._phone.spawn(work, *arguments)

    def _look(self) -> None:
        if self.incoming not in self._phone.ringing and self.is_current:
            self.dismiss(self._is_decided)
        elif self._settling.is_over and not self.takes_keys:
            self.takes_keys = True
            self.query_one(Vertical).border_title = "Somebody calls"
            self.refresh_bindings()
