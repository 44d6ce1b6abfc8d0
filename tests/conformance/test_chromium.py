"""Two pages of headless Chromium call each other, relay-only, through our relay (spec/turn.md)."""

import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tests.conformance.webdriver import browser, site

PAGES = Path(__file__).with_name("pages")
VIRTUAL = ip_network("198.18.0.0/15")
FRAMES, SAMPLES = 60, 48_000
"""What has to be decoded: two seconds of picture at 30 a second, and one of sound."""

PATIENCE = 45


def wait_for_media(pages):
    """Return the progress of each page once all have decoded enough."""
    end = time.monotonic() + PATIENCE
    while True:
        progress = [page.call("progress") for page in pages]
        if all(one["frames"] >= FRAMES and one["samples"] >= SAMPLES for one in progress):
            return progress
        assert time.monotonic() < end, progress
        time.sleep(0.2)  # the browser has no event that this process could wait for


@pytest.mark.system("chromium", "chromedriver")
@pytest.mark.timeout(180)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_two_pages_see_each_other(relay, transport, require_program, tmp_path):
    """TURN-11, TURN-30: with a ticket's credentials and iceTransportPolicy ``relay`` both pages
    decode the other's picture and sound, over a pair of relayed addresses that exist nowhere.
    """
    programs = require_program("chromedriver"), require_program("chromium")
    with site(PAGES) as url, browser(*programs, tmp_path) as chromium:
        pages = [chromium.page(f"{url}/call.html") for _ in range(2)]
        (turn,) = (
            one for one in relay.urls if one.endswith(f"={transport}") and "turns" not in one
        )
        for page, credential in zip(pages, relay.tickets(1)[0], strict=True):
            page.call("prepare", turn, credential.username, credential.password)
        caller, callee = pages
        offer = caller.call("offer")
        answer = callee.call("answer", offer)
        for description in (offer, answer):
            candidates = [line for line in description.splitlines() if "a=candidate" in line]
            assert candidates
            assert all(" typ relay " in line for line in candidates)
        caller.call("accept", answer)
        for progress in wait_for_media(pages):
            assert (progress["local"], progress["remote"]) == ("relay", "relay")
            assert ip_address(progress["remoteAddress"]) in VIRTUAL
            assert progress["width"] >= 320
            assert progress["state"] == "connected"
        for page in pages:
            page.call("hangUp")
