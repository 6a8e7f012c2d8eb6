"""Patches MiniStack and starts it, when run as ``python -P launcher.py [file of more patches ...]``.

The patches work with only one version of MiniStack, so the launcher refuses to start other versions. To upgrade
MiniStack, run ``tests/system/test_ministack.py`` with the new version. Delete the patches that the new version no
longer needs, and adapt the other patches. Change ``VERSION`` and ``ministack-requirements.txt`` together.
"""

import contextlib
import importlib.util
import inspect
import os
import runpy
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

VERSION = "1.5.33"
HERE = Path(__file__).parent
# `local/cloud.py` installs packages into this folder that MiniStack needs but functions must not import.
PRIVATE_FOLDER = "own"
PRIVATE_PATH = str(Path(sys.prefix) / PRIVATE_FOLDER)

Patch = Callable[[], None]


def signed_tokens() -> None:
    """AWS signs a user pool's tokens with RSA and publishes the public keys.

    Without the package `cryptography`, MiniStack gives tokens invalid signatures. The authorizer of the project's API
    verifies the signatures. `cryptography` is in a separate folder, so that functions cannot import it without
    packaging it.
    """
    sys.path.append(PRIVATE_PATH)


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


def run_worker(script: str, folder: str, variables: dict[str, str], *pipes: Connection) -> None:
    """Runs a function's worker script in a process that `processes.py` forked.

    ``pipes`` become its standard input, output and error.
    """
    for descriptor, pipe in enumerate(pipes):
        os.dup2(pipe.fileno(), descriptor)
        pipe.close()
    sys.stdin, sys.stdout = os.fdopen(0, encoding="utf-8"), os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    sys.path[:] = [path for path in sys.path if path != PRIVATE_PATH]
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    # Linux shows this name in process lists.
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(variables["AWS_LAMBDA_FUNCTION_NAME"].rpartition("-")[2])
    runpy.run_path(script, run_name="__main__")


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
