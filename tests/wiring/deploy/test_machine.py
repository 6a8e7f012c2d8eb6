"""Tests that a deploy refuses a package whose compiled modules cannot run where the functions run."""

from __future__ import annotations

import json
import struct
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _cffi_backend
import pytest
from chalice.cli.factory import CLIFactory

from infra.deploy import project
from infra.deploy.context import Context
from infra.deploy.machine import Machine, lambda_machine, require_fit, this_machine
from infra.deploy.package import _required, build_package, package_file, unpack
from infra.deploy.releases import Release
from infra.deploy.rollback import restore
from infra.deploy.target import DeployError, Target
from tests.wiring.fakes import configured, distributions
from tests.wiring.stage import as_variables, resolve

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
TAG = PYTHON.replace(".", "")
ARM = Machine("this machine", "Linux", "arm64", (f".cpython-{TAG}-aarch64-linux-gnu.so", ".abi3.so", ".so"))
MAC = Machine("this machine", "macOS", "arm64", (f".cpython-{TAG}-darwin.so", ".abi3.so", ".so"))


def elf(processor: int) -> bytes:
    return b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + struct.pack("<H", processor)


def mach_o(processor: int) -> bytes:
    return struct.pack("<II", 0xFEEDFACF, processor)


def universal(*processors: int) -> bytes:
    return struct.pack(">II", 0xCAFEBABE, len(processors)) + b"".join(
        struct.pack(">5I", each, 0, 0, 0, 0) for each in processors
    )


X86, ARM64, RISCV = 62, 183, 243
MAC_X86, MAC_ARM64 = 0x01000007, 0x0100000C


def package(path: Path, **files: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in {"app.py": b"import chalice", **files}.items():
            file.writestr(name, content)
    return path


def test_this_machine_can_load_what_it_has_loaded(tmp_path: Path) -> None:
    loaded = Path(_cffi_backend.__file__)
    require_fit(package(tmp_path / "package.zip", **{loaded.name: loaded.read_bytes()}), this_machine(), "")


@pytest.mark.parametrize(
    ("where", "files"),
    [
        (lambda_machine("x86_64"), {f"a.cpython-{TAG}-x86_64-linux-gnu.so": elf(X86), "b.libs/c.so.1": elf(X86)}),
        (lambda_machine("arm64"), {f"a.cpython-{TAG}-aarch64-linux-gnu.so": elf(ARM64), "b.abi3.so": elf(ARM64)}),
        (MAC, {f"a.cpython-{TAG}-darwin.so": universal(MAC_X86, MAC_ARM64), "b.abi3.so": mach_o(MAC_ARM64)}),
    ],
)
def test_a_package_with_modules_for_its_own_machine_is_accepted(
    where: Machine, files: dict[str, bytes], tmp_path: Path
) -> None:
    require_fit(package(tmp_path / "package.zip", **files), where, "")


@pytest.mark.parametrize(
    ("where", "name", "content", "sentence"),
    [
        (
            ARM,
            f"x/a.cpython-{TAG}-x86_64-linux-gnu.so",
            elf(X86),
            f"the package contains a.cpython-{TAG}-x86_64-linux-gnu.so, which is compiled for x86_64 Linux with "
            f"Python {PYTHON}, but this machine runs arm64 Linux with Python {PYTHON}: try again",
        ),
        (
            MAC,
            "a.abi3.so",
            elf(ARM64),
            "the package contains a.abi3.so, which is compiled for arm64 Linux, but this machine runs arm64 macOS with "
            f"Python {PYTHON}: try again",
        ),
        (
            lambda_machine("x86_64"),
            "a.cpython-39-x86_64-linux-gnu.so",
            elf(X86),
            "the package contains a.cpython-39-x86_64-linux-gnu.so, which is compiled for x86_64 Linux with Python "
            f"3.9, but Lambda runs x86_64 Linux with Python {PYTHON}: try again",
        ),
    ],
)
def test_a_module_for_another_processor_system_or_python_is_refused_in_one_sentence(
    where: Machine, name: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(DeployError) as refused:
        require_fit(package(tmp_path / "package.zip", **{name: content}), where, "try again")
    assert str(refused.value) == sentence


# --- the deploy -------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Replaces the folder into which pip installs the requirements for this machine."""
    folder = tmp_path / "installed"
    (folder / "pymysql").mkdir(parents=True)
    (folder / "pymysql" / "__init__.py").touch()
    required = _required((project.REPOSITORY / "requirements.txt").read_text())
    distributions(folder, *(name.replace("-", "_") for name in required))
    monkeypatch.setattr(project, "installed_here", lambda: folder)
    return folder


def test_a_local_stage_gets_what_pip_installs_here_and_a_stage_on_aws_what_lambda_runs(
    target: Target, installed: Path
) -> None:
    for local in (True, False, True):
        config = configured(replace(target, local=local))
        assert (target.project / "requirements.txt").exists() is not local
        assert (target.project / "vendor").exists() is local
    with zipfile.ZipFile(build_package(replace(target, local=True), config)) as file:
        assert {"app.py", "chalicelib/settings.py", "pymysql/__init__.py"} <= set(file.namelist())
        # The package of a local stage has no bytecode, so that edits stay live.
        assert not any("__pycache__" in name for name in file.namelist())


def outputs(**parameters: str) -> dict[str, str]:
    return as_variables(resolve("test", "eu-central-1", "123456789012", **parameters).outputs)


def test_functions_run_on_arm64_or_the_parameters_processor_and_locally_on_this_machines(target: Target) -> None:
    def processor(target: Target, **parameters: str) -> str:
        return project.architecture(project.configure(target, outputs(**parameters), "2026-11-21"))

    assert processor(target) == project.tracked_config()["lambda_architecture"] == "arm64"
    assert processor(target, Architecture="x86_64") == "x86_64"
    assert processor(replace(target, local=True), Local="true") == this_machine().processor


@pytest.mark.parametrize("processor", ["arm64", "x86_64"])
def test_a_rollback_keeps_the_processor_and_the_package_of_the_release(
    processor: str, target: Target, tmp_path: Path
) -> None:
    kept = package(tmp_path / "kept.zip", **{"__pycache__/app.cpython-311.pyc": b"bytecode"})
    config = project.configure(target, outputs(Architecture=processor), "2026-11-21")
    unpack(kept, "", config, tmp_path / "former")
    assert not list(tmp_path.rglob("*.pyc"))
    read = CLIFactory(str(tmp_path / "former"), environ={}).create_config_obj("test")
    assert read.lambda_architecture == processor
    # Chalice uses the file that has this name.
    assert package_file(tmp_path / "former", config).read_bytes() == kept.read_bytes()


def test_a_package_that_this_machine_cannot_run_is_neither_deployed_nor_kept(target: Target, installed: Path) -> None:
    target = replace(target, local=True)
    config = configured(target)
    (installed / "native.abi3.so").write_bytes(elf(RISCV))
    with pytest.raises(
        DeployError, match=r"^the package contains native\.abi3\.so, which is compiled for riscv64 Linux"
    ):
        build_package(target, config)
    assert list((target.project / ".chalice" / "deployments").iterdir()) == []
    assert not installed.exists()


def test_a_release_that_this_machine_cannot_run_is_not_restored(
    target: Target, installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = replace(target, local=True)
    release = Release("r", project.RUNTIME, "", configured(target), {}, {}, {}, [])
    releases: Any = SimpleNamespace(
        release=lambda _: release,
        fetch_package=lambda _, path: package(path, **{"native.abi3.so": elf(RISCV)}),
        template=json.dumps,
    )
    monkeypatch.setattr(project, "run_chalice", lambda *_: pytest.fail("it was deployed"))
    context = Context(target, lambda _: SimpleNamespace(), None, lambda _: None, lambda _: None)  # type: ignore[arg-type]
    with pytest.raises(DeployError, match=r"compiled for riscv64 Linux, but this machine runs .*: deploy from"):
        restore(context, releases, "r")


def test_what_pip_cannot_install_stops_the_deploy_with_what_pip_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("./missing\n")
    monkeypatch.setattr(project, "REPOSITORY", tmp_path)
    monkeypatch.setattr(project, "INSTALLED", tmp_path / "installed")
    with pytest.raises(
        DeployError, match=r"^pip could not install requirements\.txt for the functions:\n(.|\n)*missing"
    ):
        project.installed_here()
    assert list((tmp_path / "installed").iterdir()) == []
