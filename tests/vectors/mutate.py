"""Alter every expected value of the vectors, one at a time: ``python -m tests.vectors.mutate``.

That the comparison with the generator's bytes finds any change is plain; here the implementation
alone has to find it. What it lets pass is printed as a survivor. The tests do this for a sample.
"""

import sys
from collections.abc import Iterator
from typing import Any

from tests.vectors import checks
from tests.vectors.harness import VECTORS, MismatchError, Vector, VectorFile

Place = tuple[str | int, ...]
EXPECTED = ("output", "refusal")


def places(value: Any, before: Place = ()) -> Iterator[Place]:
    """Yield where the strings, numbers and other leaves of a JSON value are."""
    match value:
        case dict():
            for name, item in value.items():
                yield from places(item, (*before, name))
        case list():
            for index, item in enumerate(value):
                yield from places(item, (*before, index))
        case _:
            yield before


def altered(value: Any, place: Place) -> Any:
    """Return a copy of a JSON value with the leaf at ``place`` altered in one character or bit."""
    if not place:
        return _other(value)
    copy = value.copy()
    copy[place[0]] = altered(value[place[0]], place[1:])
    return copy


def _other(leaf: Any) -> Any:
    match leaf:
        case str():
            middle = len(leaf) // 2
            return (
                leaf[:middle]
                + ("1" if leaf[middle : middle + 1] == "0" else "0")
                + leaf[middle + 1 :]
            )
        case bool():
            return not leaf
        case None:
            return "00"
    return leaf + 1


def expected_places(vector: Vector) -> list[Place]:
    """Return where in a vector its expected values are."""
    return [
        (name, *place)
        for name in EXPECTED
        if name in vector.data
        for place in places(vector.data[name])
    ]


def is_found(vector: Vector, place: Place) -> bool:
    """Tell whether the implementation disagrees with a vector that is altered in one place."""
    spoilt = Vector(vector.file, altered(dict(vector.data), place))
    try:
        spoilt.run()
    except MismatchError:
        return True
    return False


def main() -> int:
    count, survivors = 0, []
    for path in sorted(VECTORS.glob("*.json")):
        file = VectorFile.read(path)
        text = path.read_bytes()
        assert text == checks.generated()[path.name], "the files are not what the generator makes"
        for vector in file.vectors:
            for place in expected_places(vector):
                count += 1
                if not is_found(vector, place):
                    survivors.append(f"{vector.id} {place}")
    print(*survivors, sep="\n")
    print(f"{count} values altered, {len(survivors)} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
