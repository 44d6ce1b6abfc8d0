"""The screen that asks whether somebody is to be blocked, before a key does it."""

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

if TYPE_CHECKING:
    from e2ecall.cli.softphone.phone import Phone


class BlockingScreen(ModalScreen[bool]):
    """Asks about one person; a call with them may end meanwhile. It returns what was decided."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("y", "block", "Block"),
        ("n", "back", "Back"),
        ("escape", "back", ""),
    ]

    CSS = """
    BlockingScreen { align: center middle; }
    BlockingScreen > Vertical {
        width: 60; max-width: 100%; height: auto; padding: 1 2; border: heavy $error;
        background: $surface;
    }
    BlockingScreen Static { width: 100%; text-align: center; }
    """

    def __init__(self, phone: "Phone", peer: str) -> None:
        super().__init__()
        self.peer = peer
        self._phone = phone

    def compose(self) -> ComposeResult:
        """Say who is blocked, and what that means."""
        text = Text.assemble(
            (f"Block {self.peer}?\n\n", "bold"),
            "Their calls and messages are refused from now on, and a call with them ends. They are "
            "not told. e2ecall unblock takes it back.",
        )
        with Vertical():
            yield Static(text)
        yield Footer(show_command_palette=False)

    def action_block(self) -> None:
        """Block them."""
        self._phone.spawn(self._phone.block, self.peer)
        self.dismiss(True)

    def action_back(self) -> None:
        """Leave it as it is."""
        self.dismiss(False)
