"""Patches MiniStack and starts it, when run as ``python -P launcher.py [file of more patches ...]``.

The patches work with only one version of MiniStack, so the launcher refuses to start other versions. To upgrade
MiniStack, run ``tests/system/test_ministack.py`` with the new version. Delete the patches that the new version no
longer needs, and adapt the other patches. Change ``VERSION`` and ``ministack-requirements.txt`` together.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

VERSION = "1.5.33"
HERE = Path(__file__).parent
# This folder contains packages that MiniStack needs but functions must not import.
PRIVATE_FOLDER = "own"

Patch = Callable[[], None]


def signed_tokens() -> None:
    """AWS signs a user pool's tokens with RSA and publishes the public keys.

    Without the package `cryptography`, MiniStack gives tokens invalid signatures. The authorizer of the project's API
    verifies the signatures. `cryptography` is in a separate folder so that functions cannot import it without packaging
    it.
    """
    sys.path.append(str(Path(sys.prefix) / PRIVATE_FOLDER))


def patches(more_files: Iterable[Path] = ()) -> list[Patch]:
    """Returns every patch in this folder, followed by the patches in ``more_files``."""
    files = [path for path in sorted(HERE.glob("*.py")) if path.name not in ("__init__.py", Path(__file__).name)]
    # MiniStack looks for `cryptography` only when imported, so signed_tokens runs before patches that import MiniStack.
    return [signed_tokens, *(patch for path in [*files, *more_files] for patch in _public_functions(path))]


def _public_functions(path: Path) -> list[Patch]:
    """Returns the functions that a file defines, except functions whose names start with an underscore.

    The file is loaded by its path, because adding its folder to ``sys.path`` could hide modules that MiniStack imports.
    """
    spec = importlib.util.spec_from_file_location(f"patches_of_{path.stem}", path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path} is not a Python file: pass a file of patches")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [
        function
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    ]


def main(more_files: Iterable[Path] = ()) -> None:
    installed = version("ministack")
    if installed != VERSION:
        sys.exit(
            f"MiniStack {installed} is installed, but the patches are for {VERSION}: {__file__} says how to upgrade"
        )
    for patch in patches(more_files):
        patch()

    from ministack.app import main as serve

    serve()


if __name__ == "__main__":
    files = [Path(name) for name in sys.argv[1:]]
    # MiniStack also reads sys.argv, and would reject the launcher's own arguments.
    del sys.argv[1:]
    main(files)
