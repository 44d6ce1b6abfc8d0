"""``e2ecall completion``: what a shell needs to complete this command line."""

from collections.abc import Callable
from typing import Literal, TypeAlias

import cyclopts

Shell: TypeAlias = Literal["bash", "zsh", "fish"]


def completion_of(app: cyclopts.App) -> Callable[..., None]:
    """Return the command for ``app``, whose other commands it completes."""

    def completion(shell: Shell, /) -> None:
        """Print a script that completes this command line; nothing is installed.

        bash: e2ecall completion bash > ~/.local/share/bash-completion/completions/e2ecall

        zsh: e2ecall completion zsh > _e2ecall, in a folder of your $fpath

        fish: e2ecall completion fish > ~/.config/fish/completions/e2ecall.fish

        Parameters
        ----------
        shell
            Which shell.
        """
        print(app.generate_completion(shell=shell))

    return completion
