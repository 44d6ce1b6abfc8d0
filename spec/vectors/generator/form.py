"""The form of the vector files (spec/vectors/README.md): collecting vectors, writing JSON."""

import json
from dataclasses import dataclass, field
from typing import Any

Plain = None | bool | int | str | bytes | list[Any] | tuple[Any, ...] | dict[str, Any]


@dataclass
class VectorFile:
    """The vectors of one chapter; ``given`` is input that all of them share."""

    chapter: str
    given: dict[str, Any] = field(default_factory=dict)
    vectors: list[dict[str, Any]] = field(default_factory=list)

    def accept(
        self,
        operation: str,
        name: str,
        requirement: str,
        given: Plain,
        output: Plain,
        steps: Plain = None,
    ) -> None:
        """Add a vector: with this input the operation gives this output.

        ``steps`` are values on the way, for whoever looks for a difference.
        """
        expected = {} if steps is None else {"steps": _plain(steps)}
        self._add(operation, name, requirement, given, expected | {"output": _plain(output)})

    def refuse(
        self, operation: str, name: str, requirement: str, given: Plain, layer: str, reason: str
    ) -> None:
        """Add a negative vector: this layer refuses the input for this one reason."""
        refusal = {"layer": layer, "reason": reason}
        self._add(operation, name, requirement, given, {"refusal": refusal})

    def to_json(self) -> bytes:
        """Return the file."""
        names = [vector["name"] for vector in self.vectors]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"names that occur twice: {twice}")
        content = {"chapter": self.chapter, "given": _plain(self.given), "vectors": self.vectors}
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()

    def _add(
        self, operation: str, name: str, requirement: str, given: Plain, expected: dict[str, Any]
    ) -> None:
        vector = {"name": name, "operation": operation, "requirement": requirement}
        self.vectors.append(vector | {"input": _plain(given)} | expected)


def _plain(value: Plain) -> Any:
    """Return a value with its binary as lower-case hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
