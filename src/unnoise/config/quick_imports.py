"""Lightning without the packages that only metrics of torchmetrics need.

torchmetrics, which Lightning imports, looks for them and imports what is there: three seconds.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from typing import Any

HIDDEN = ("matplotlib", "scipy", "torch_fidelity", "torchvision", "transformers")
ASKS = {"_version": PackageNotFoundError, "package_available": None}
"""How lightning_utilities asks for a package, and what it gets for one that is not there."""


@contextmanager
def quick_imports() -> Iterator[None]:
    """Answer that the ``HIDDEN`` packages are not there, to lightning_utilities alone.

    Where it is not installed, or asks in another way, nothing is hidden: imports take longer.
    """
    try:
        from lightning_utilities.core import imports
    except ImportError:
        yield
        return
    names: dict[str, Any] = vars(imports)
    before = {name: names[name] for name in ASKS if callable(names.get(name))}
    for name, ask in before.items():
        names[name] = _hiding(ask, ASKS[name])
    try:
        yield
    finally:
        names.update(before)


def _hiding(ask: Any, error: type[Exception] | None) -> Any:
    def answer(package: str, *rest: Any, **more: Any) -> Any:
        if package not in HIDDEN:
            return ask(package, *rest, **more)
        if error is not None:
            raise error(package)
        return False

    return answer
