"""Canonical MessagePack (spec/wire.md): the only place that packs or unpacks, for both sides.

A message is an array of typed fields. What decodes is exactly what would be encoded again:
other spellings of the same value, trailing bytes, maps, extension types and floats are refused.
It knows no message types of its own.
"""

from typing import Any, Final, TypeVar

import msgpack
import msgspec

from relay.wire.errors import WireError
from relay.wire.limits import MAX_BUNDLE_FIELDS

T = TypeVar("T")

_ENCODER: Final = msgspec.msgpack.Encoder()
"""Writes each value in its shortest form, as msgpack does, and structs without a copy."""


def encode(message: object, *, max_array: int = MAX_BUNDLE_FIELDS) -> bytes:
    """Return the canonical bytes of a message struct (or of a plain value in tests).

    Raises:
        WireError: an array is longer than what `decode` takes: nobody could read it.
    """
    packed = _ENCODER.encode(message)
    # An array of n entries has more than n bytes, so most messages need no look at theirs.
    if len(packed) > max_array:
        try:
            _unpack(packed, max_array)
        except WireError as error:
            raise WireError(f"an array has more than {max_array} entries") from error
    return packed


def decode(data: bytes, kind: type[T], *, limit: int, max_array: int = MAX_BUNDLE_FIELDS) -> T:
    """Read ``data`` (at most ``limit`` bytes) as one message of ``kind``.

    ``max_array`` is the number of entries that any array may have.

    Raises:
        WireError: too long, not MessagePack, of another type, or not canonical.
    """
    if len(data) > limit:
        raise WireError(f"message of {len(data)} bytes, at most {limit} are allowed")
    plain = _unpack(data, max_array)
    try:
        message: T = msgspec.convert(plain, kind, strict=True, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise WireError(f"not a valid message: {error}") from error
    if _ENCODER.encode(message) != data:
        raise WireError("not in canonical form")
    return message


def _unpack(data: bytes, max_array: int) -> Any:
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=True,
            max_str_len=len(data),
            max_bin_len=len(data),
            max_array_len=max_array,
            max_map_len=0,
            max_ext_len=0,
        )
    except msgpack.ExtraData as error:
        raise WireError("trailing bytes") from error
    except (msgpack.UnpackException, ValueError, RecursionError) as error:
        raise WireError("not MessagePack within the limits") from error
