"""Tests that a package for AWS contains only files of wheels whose hashes are locked. No test uses a network."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.deploy import project
from infra.deploy.package import build_package
from infra.deploy.target import DeployError, Target

Build = Callable[..., Path]
WHEEL = {
    "demo.py": "",
    "demo-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1\n",
    "demo-1.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


def digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Build:
    """Returns a function that builds a package with a wheel. By default, the lock has the hash of the wheel."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    for module in ("package", "project"):
        monkeypatch.setattr(f"infra.deploy.{module}.REPOSITORY", tmp_path)
    (tmp_path / "app.py").touch()

    def build(tags: str = "py3-none-any", locked: str = "") -> Path:
        wheel = tmp_path / f"demo-1-{tags}.whl"
        record = "".join(f"{name},sha256={digest(text)},{len(text)}\n" for name, text in WHEEL.items())
        with zipfile.ZipFile(wheel, "w") as file:
            for name, text in {**WHEEL, "demo-1.dist-info/RECORD": f"{record}demo-1.dist-info/RECORD,,\n"}.items():
                file.writestr(zipfile.ZipInfo(name), text)
        locked = locked or hashlib.sha256(wheel.read_bytes()).hexdigest()
        lock = f"demo==1 \\\n    --hash=sha256:{locked}\n    # via -r a.in\n" if locked != "nothing" else "demo==1\n"
        (tmp_path / "requirements.txt").write_text(lock)
        target = Target("prod", tmp_path / "project", False, {}, None)
        config = {"stages": {"prod": {"lambda_architecture": "arm64"}}}
        project.write_project(target, config)
        return build_package(target, config)

    return build


@pytest.mark.parametrize("tags", ["py3-none-any", "cp38-abi3-manylinux2014_aarch64"])
def test_a_package_has_the_wheel_for_lambda_whose_hash_is_locked(build: Build, tags: str) -> None:
    with zipfile.ZipFile(build(tags)) as file:
        assert file.namelist().count("demo.py") == 1


@pytest.mark.parametrize(
    ("tags", "locked", "said"),
    [
        ("py3-none-any", "nothing", "Hashes are required in --require-hashes mode"),
        ("py3-none-any", "0" * 64, "DO NOT MATCH THE HASHES"),
        # Chalice would download this wheel in a second call, which compares no hashes.
        ("cp38-abi3-manylinux2014_aarch64", "0" * 64, "DO NOT MATCH THE HASHES"),
        ("cp38-abi3-manylinux2014_x86_64", "", "No matching distribution found for demo==1"),
    ],
)
def test_another_wheel_is_refused_with_what_pip_says(build: Build, tags: str, locked: str, said: str) -> None:
    with pytest.raises(DeployError, match=rf"^pip could not download requirements\.txt for Lambda:\n(.|\n)*{said}"):
        build(tags, locked)


@pytest.mark.parametrize(("name", "text"), [("demo.py", "changed"), ("added.py", ""), ("demo-1.dist-info/added", "")])
def test_a_packaged_file_that_differs_from_the_wheels_is_refused_and_the_package_not_kept(
    build: Build, name: str, text: str
) -> None:
    package = build()
    # The package now has bytecode, which the deploy compiled itself.
    assert build() == package
    with zipfile.ZipFile(package) as file:
        files: dict[str, bytes | str] = {each: file.read(each) for each in file.namelist()}
    with zipfile.ZipFile(package, "w") as file:
        for each, content in {**files, name: text}.items():
            file.writestr(each, content)
    with pytest.raises(DeployError, match=f"^the package contains {name}, but no locked wheel has this file"):
        build()
    assert not package.exists()
