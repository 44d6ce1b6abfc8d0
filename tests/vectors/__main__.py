"""Check test vectors: ``python -m tests.vectors [DIR]`` (``make vectors [VECTORS=DIR]``).

DIR is a folder of vector files, spec/vectors unless named. The third-party data are run as well.
The last line is ``N passed, N failed``; the exit status is 1 where anything failed.
"""

import sys
from pathlib import Path

from tests.vectors import checks, third_party
from tests.vectors.harness import VECTORS


def main(arguments: list[str]) -> int:
    if len(arguments) > 1 or (arguments and not Path(arguments[0]).is_dir()):
        print(f"e2ecall: error: not a folder of vectors: {' '.join(arguments)}", file=sys.stderr)
        return 2
    folder = Path(arguments[0]) if arguments else VECTORS
    passed, failed = checks.run(checks.checks(folder), print)
    print(f"{folder}: {passed} passed, {failed} failed")
    data = third_party.folder()
    more_passed, more_failed = checks.run(third_party.checks(data), print)
    print(f"third-party data: {more_passed} passed, {more_failed} failed")
    if not data.is_dir():
        print(f"hint: {data} is missing: see spec/vectors/third-party.md for what belongs there")
    print(f"{passed + more_passed} passed, {failed + more_failed} failed")
    return 1 if failed + more_failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
