"""QR codes in a terminal."""

import io


def picture(text: str) -> str:
    """Return the QR code in half blocks, for a terminal of light text on a dark ground."""
    import segno

    drawn = io.StringIO()
    segno.make(text, micro=False, error="l").terminal(drawn, compact=True)
    return drawn.getvalue()
