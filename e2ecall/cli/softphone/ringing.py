"""The screen of a call that comes in: answer, decline, and what becomes of a call that goes on."""

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from e2ecall.cli.softphone.widgets import ringing_text
from e2ecall.client import IncomingCall

if TYPE_CHECKING:
    from e2ecall.cli.softphone.phone import Phone


class RingingScreen(ModalScreen[None]):
    """One call that rings. It closes itself when the call rings no longer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("a", "answer", "Answer"),
        ("e", "answer_and_end", "End the other and answer"),
        ("d", "decline", "Decline"),
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

    def compose(self) -> ComposeResult:
        """Show who calls."""
        with Vertical() as box:
            box.border_title = "Somebody calls"
            yield Static(ringing_text(self.incoming))
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Look for the end of the ringing."""
        self.set_interval(0.1, self._close_when_over)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002 - Textual's signature
        """Offer to end another call only where one goes on."""
        return self.incoming.other is not None or action != "answer_and_end"

    def action_answer(self) -> None:
        """Take the call; one that goes on is put on hold."""
        self._phone.spawn(self._phone.answer, self.incoming)

    def action_answer_and_end(self) -> None:
        """Take the call and end the one that goes on."""
        self._phone.spawn(self._phone.answer, self.incoming, True)

    def action_decline(self) -> None:
        """Do not take it."""
        self._phone.spawn(self._phone.decline, self.incoming)

    def _close_when_over(self) -> None:
        if self.incoming not in self._phone.ringing and self.is_current:
            self.dismiss()
