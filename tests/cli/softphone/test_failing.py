"""What the softphone's screen prints when the program itself fails."""

import pytest

from e2ecall.cli.softphone.app import PhoneApp

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),  # as Textual needs it
]


class Failing:
    """A phone that fails when the screen looks at it, with something in a local."""

    @property
    def me(self):
        said = "correct " + "horse"
        raise RuntimeError(f"{len(said)} letters")


async def test_no_locals(capsys):
    """S4: an error of the program is told with its place, and without the values of locals."""
    app = PhoneApp(Failing())
    await app.run_async(headless=True)
    told = capsys.readouterr().err
    assert app.return_code == 1
    assert "13 letters" in told
    assert "correct horse" not in told
