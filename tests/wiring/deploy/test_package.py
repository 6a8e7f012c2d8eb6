"""Tests the bytecode in deployment packages."""

from __future__ import annotations

import importlib.util
import marshal
import subprocess
import sys
import zipfile
from pathlib import Path
from types import CodeType

import pytest

from infra.deploy import package, project
from infra.deploy.target import DeployError, Target
from tests.wiring.fakes import configured

APP = "def handler(name):\n    return name in {'latte', 'mocha', 'espresso'}\n"


def cached(name: str) -> str:
    return Path(importlib.util.cache_from_source(name)).as_posix()


def zipped(folder: Path, year: int = 1980, **files: str) -> Path:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "package.zip", "w") as file:
        for name, content in {"app.py": APP, "lib/a.py": "import app\n", **files}.items():
            file.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), content)
    package.add_bytecode(folder / "package.zip")
    return folder / "package.zip"


def bytecode(made: Path, name: str) -> tuple[bytes, CodeType]:
    with zipfile.ZipFile(made) as file:
        content = file.read(cached(name))
    return content[:8], marshal.loads(content[16:])


def test_lambda_loads_the_bytecode_without_comparing_it_with_the_source(tmp_path: Path) -> None:
    made = zipped(tmp_path / "a")
    for name in ("app.py", "lib/a.py"):
        head, code = bytecode(made, name)
        assert head == importlib.util.MAGIC_NUMBER + b"\x01\0\0\0"
        # Tracebacks show the path on Lambda.
        assert code.co_filename == f"/var/task/{name}"
    with zipfile.ZipFile(made) as file:
        # The functions run as another user than the one that unpacks the package.
        assert {each.external_attr >> 16 for each in file.infolist()} == {0o644}
        file.extractall(tmp_path / "task")
    (tmp_path / "task" / "app.py").write_text("raise SystemExit('compiled again')\n")
    command = [sys.executable, "-S", "-c", "import app; print(app.handler('latte'))"]
    assert subprocess.check_output(command, cwd=tmp_path / "task", text=True) == "True\n"


def test_equal_code_in_another_folder_at_another_time_gives_the_same_package(tmp_path: Path) -> None:
    first = zipped(tmp_path / "a")
    second = zipped(tmp_path / "another" / "folder", 2026, **{cached("lib/gone.py"): "stale bytecode"})
    package.add_bytecode(second)
    assert first.read_bytes() == second.read_bytes()


def test_code_that_cannot_be_compiled_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"^the package cannot be compiled:\n(.|\n)*/var/task/lib/b\.py"):
        zipped(tmp_path / "a", **{"lib/b.py": "def\n"})


def test_an_edited_file_is_compiled_again_and_the_checkout_gets_no_bytecode(
    target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    (repository / "chalicelib").mkdir(parents=True)
    (repository / "requirements.txt").touch()
    (repository / "app.py").write_text(APP)
    module = repository / "chalicelib" / "module.py"
    for each in (project, package):
        monkeypatch.setattr(each, "REPOSITORY", repository)
    monkeypatch.setattr(project, "tracked_config", lambda: {"lambda_functions": {}})
    for name in ("FIRST", "OTHER"):
        module.write_text(f"{name} = 1\n")
        made = package.build_package(target, configured(target))
        assert name in bytecode(made, "chalicelib/module.py")[1].co_names
        assert not list(repository.rglob("*.pyc"))
