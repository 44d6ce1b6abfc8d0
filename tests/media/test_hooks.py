"""Private points of aiortc and aioice: a library that differs is refused before any call."""

import asyncio

import aioice.ice
import aioice.turn
import anyio
import pytest
from aiortc import RTCDtlsTransport, RTCRtpReceiver, RTCRtpSender
from aiortc.jitterbuffer import JitterBuffer

from e2ecall.errors import MediaError
from e2ecall.media import hooks
from e2ecall.media.engine import MediaEngine


async def run_check():
    hooks.check()


def test_the_installed_libraries_fit():
    """MEDIA-08: every hook point is there in the versions that this package asks for."""
    asyncio.run(run_check())


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, name, _ in hooks._METHODS])
def test_a_missing_method_is_refused(monkeypatch, owner, name):
    """MEDIA-08: each method that is overridden, wrapped or called must exist."""
    if name in vars(object) or name == "__init__":
        monkeypatch.setattr(owner, name, lambda: None)
    else:
        monkeypatch.delattr(owner, name)
    with pytest.raises(MediaError, match=r"differs at") as error:
        asyncio.run(run_check())
    assert name in str(error.value)
    assert error.value.hint


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (JitterBuffer, "add"),
        (RTCRtpSender, "_handle_rtcp_packet"),
        (RTCDtlsTransport, "_handle_rtp_data"),
        (aioice.Connection, "check_incoming"),
    ],
)
def test_a_method_with_other_parameters_is_refused(monkeypatch, owner, name):
    """MEDIA-08: a method that takes something else is another method."""
    monkeypatch.setattr(owner, name, lambda self, other: None)
    with pytest.raises(MediaError, match=name):
        asyncio.run(run_check())


@pytest.mark.parametrize(
    "name", ["_RTCRtpReceiver__jitter_buffer", "_RTCRtpReceiver__decoder_queue"]
)
def test_a_missing_attribute_is_refused(monkeypatch, name):
    """MEDIA-08: a receiver that keeps its buffer elsewhere would decode what nobody decrypted."""
    original = RTCRtpReceiver.__init__

    def changed(self, kind, transport):
        original(self, kind, transport)
        delattr(self, name)

    monkeypatch.setattr(RTCRtpReceiver, "__init__", changed)
    with pytest.raises(MediaError, match=name):
        asyncio.run(run_check())


def test_a_receiver_that_does_not_use_its_buffer_is_refused(monkeypatch):
    """MEDIA-08: the method that takes packets must read the attribute that is replaced."""

    async def other(self, packet, arrival_time_ms):
        pass

    uses = tuple(
        (other, n) if f.__name__ == "_handle_rtp_packet" else (f, n) for f, n in hooks._USES
    )
    monkeypatch.setattr(hooks, "_USES", uses)
    with pytest.raises(MediaError, match="jitter_buffer"):
        asyncio.run(run_check())


@pytest.mark.anyio
async def test_the_engine_does_not_open_then(monkeypatch):
    """MEDIA-08: entering the engine fails, and leaves no thread."""
    monkeypatch.delattr(RTCRtpReceiver, "_send_rtcp_pli")
    with pytest.raises(MediaError, match="_send_rtcp_pli"):
        async with MediaEngine():
            pytest.fail("the engine opened")
    await anyio.lowlevel.checkpoint()
