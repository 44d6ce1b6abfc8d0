"""How many calls ring that nobody takes (spec/reach.md, REACH-17)."""

from e2ecall.client.rings import MAX_RINGS, RINGS_WINDOW, Rings
from relay.wire.names import Address

ALICE, BOB, *STRANGERS = (Address(f"name_{n}", "relay.example") for n in range(2 + MAX_RINGS))


def test_one_person():
    """REACH-17, P9: so many calls of one person, and no more until the first is so long ago."""
    rings = Rings()
    for number in range(MAX_RINGS):
        assert rings.has_room(ALICE, stranger=False, now=number)
        rings.rang(ALICE, stranger=False, now=number)
    for now in (MAX_RINGS, RINGS_WINDOW - 0.1):
        assert not rings.has_room(ALICE, stranger=False, now=now)
        assert rings.has_room(BOB, stranger=False, now=now)
        assert rings.has_room(BOB, stranger=True, now=now)
    assert rings.has_room(ALICE, stranger=False, now=RINGS_WINDOW)
    rings.rang(ALICE, stranger=False, now=RINGS_WINDOW)
    assert not rings.has_room(ALICE, stranger=False, now=RINGS_WINDOW)


def test_strangers_have_one_count():
    """REACH-17, P9: another name gives a stranger nothing, and takes nothing from a contact."""
    rings = Rings()
    for number, stranger in enumerate(STRANGERS):
        assert rings.has_room(stranger, stranger=True, now=number)
        rings.rang(stranger, stranger=True, now=number)
    assert not rings.has_room(ALICE, stranger=True, now=MAX_RINGS)
    assert rings.has_room(ALICE, stranger=False, now=MAX_RINGS)


def test_who_is_answered_is_not_counted():
    """REACH-17: calls that the user takes count for nobody, in whatever number."""
    rings = Rings()
    for number in range(3 * MAX_RINGS):
        assert rings.has_room(ALICE, stranger=True, now=number)
        rings.rang(ALICE, stranger=True, now=number)
        rings.taken(ALICE)
    assert rings.has_room(BOB, stranger=True, now=0)
