"""The one error of the wire layer: bytes that are not a canonical message (spec/wire.md)."""


class WireError(ValueError):
    """Bytes or values that the wire format refuses; nothing of them was used."""
