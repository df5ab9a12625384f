"""Requests: dataclasses with one field for each key of a command, and what is wrong with them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

from unnoise.cli.command import run as run_command
from unnoise.config.faults import Look
from unnoise.config.nodes import instantiate
from unnoise.config.problems import UNKNOWN, ConfigError, Problem
from unnoise.config.schema import built, notes_of, parameters, problems
from unnoise.data.source import ImageSource
from unnoise.runs.identity import Role

T = TypeVar("T")


class Request(ABC):
    """What a command is to do: a dataclass with one field for each key of its config."""

    def problems(self) -> Iterator[Problem]:
        """What is wrong between the keys, or with what they name."""
        yield from ()

    def deciding(self, config: dict[str, Any]) -> dict[str, Any]:
        """The keys that decide the result: those whose field has no role."""
        notes = notes_of(type(self))
        return {k: v for k, v in config.items() if not any(isinstance(n, Role) for n in notes[k])}

    @abstractmethod
    def answer(self, config: dict[str, Any]) -> None:
        """Do it, and print where the results are. ``config`` is the request in plain containers.

        Raises:
            FileNotFoundError: something is missing that only now can be known.
            ValueError: something is wrong that only the files could tell.
        """


def run_request(name: str, schema: type[Request]) -> None:
    """The entry point of a command with the config ``conf/<name>.yaml``."""

    def check(config: dict[str, Any]) -> list[Problem]:
        return check_request(schema, config)

    def job(config: dict[str, Any]) -> None:
        request = schema(**{key: instantiate(value) for key, value in config.items()})
        try:
            request.answer(config)
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(str(error)) from error

    run_command(name, check, job)


def check_request(schema: type[Request], config: dict[str, Any]) -> list[Problem]:
    """All that is wrong with a request, as far as it can be known before it is answered."""
    request, found = read(schema, config)
    return [*found, *between(request, request.problems())]


def between(request: object, rules: Iterator[Problem]) -> Iterator[Problem]:
    """What is wrong between the keys of a request, up to a rule that needs one that is UNKNOWN."""
    try:
        yield from rules
    except (TypeError, AttributeError):
        if is_whole(request):
            raise


def is_whole(request: object) -> bool:
    """Whether no key of a request is UNKNOWN."""
    return all(value is not UNKNOWN for value in vars(request).values())


def read(schema: Callable[..., T], config: dict[str, Any]) -> tuple[T, list[Problem]]:
    """A request with its objects built, and what is wrong with its keys one by one.

    What its keys, their types or a constructor do not allow is UNKNOWN.
    """
    found = problems(config, schema)
    wrong = {problem.key.partition(".")[0] for problem in found}
    right = [key for key, value in config.items() if key not in wrong and not _unresolved(value)]
    objects, unbuilt = built(config, right, "cpu")
    found += unbuilt
    request = schema(**{key: objects.get(key, UNKNOWN) for key in parameters(schema)})
    for key, notes in notes_of(schema).items():
        value = objects.get(key)
        if value is None or value is UNKNOWN:
            continue
        faults = [note.fault(value) for note in notes if isinstance(note, Look)]
        found += [Problem(key, fault) for fault in faults if fault is not None]
    return request, found


def _unresolved(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value is UNKNOWN or any(_unresolved(part) for part in parts)


def data_fault(data: ImageSource) -> str | None:
    """Whether the files of a data set are there."""
    try:
        data.check()
        data.class_names()
    except (FileNotFoundError, ValueError, ImportError) as error:
        return str(error)
    return None


Data = Annotated[ImageSource, Look(data_fault)]
