"""``e2ecall completion``: what a shell needs to complete this command line."""

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

import cyclopts
from cyclopts import Parameter

from e2ecall.cli.output import Output

Shell: TypeAlias = Literal["bash", "zsh", "fish"]
AsJSON: TypeAlias = Annotated[
    bool, Parameter(name="--json", env_var="E2ECALL_JSON", negative="", show_default=False)
]


def completion_of(app: cyclopts.App) -> Callable[..., None]:
    """Return the command for ``app``, whose other commands it completes."""

    def completion(shell: Shell, /, *, as_json: AsJSON = False) -> None:
        """Print a script that completes this command line; nothing is installed.

        bash: e2ecall completion bash > ~/.local/share/bash-completion/completions/e2ecall

        zsh: e2ecall completion zsh > _e2ecall, in a folder of your $fpath

        fish: e2ecall completion fish > ~/.config/fish/completions/e2ecall.fish

        Parameters
        ----------
        shell
            Which shell.
        """
        script = app.generate_completion(shell=shell)
        Output(as_json=as_json).tell(script, "completion", shell=shell, script=script)

    return completion
