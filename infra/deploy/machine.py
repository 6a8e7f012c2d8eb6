"""Checks that the compiled modules in a deployment package can run on Lambda or on this machine."""

from __future__ import annotations

import platform
import re
import struct
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from infra.deploy.target import DeployError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# Operating systems and Lambda use different names for the same processors.
ARCHITECTURES = {"AMD64": "x86_64", "aarch64": "arm64"}
# The headers of compiled files identify processors by these numbers.
ELF_PROCESSORS = {3: "i386", 40: "arm", 62: "x86_64", 183: "arm64", 243: "riscv64"}
MACH_O_PROCESSORS = {0x01000007: "x86_64", 0x0100000C: "arm64"}
HEADER_BYTES = 256


@dataclass(frozen=True)
class Machine:
    """A machine that runs Lambda functions.

    Python on this machine can load compiled modules with the file suffixes in ``suffixes``.
    """

    name: str
    system: str
    processor: str
    suffixes: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} runs {self.processor} {self.system} with Python {PYTHON}"


def this_machine() -> Machine:
    system, processor = platform.system(), platform.machine()
    system = {"Darwin": "macOS"}.get(system, system)
    return Machine("this machine", system, ARCHITECTURES.get(processor, processor), tuple(EXTENSION_SUFFIXES))


def lambda_machine(architecture: str) -> Machine:
    processor = {"arm64": "aarch64"}.get(architecture, architecture)
    own = f".cpython-{PYTHON.replace('.', '')}-{processor}-linux-gnu.so"
    return Machine("Lambda", "Linux", architecture, (own, ".abi3.so", ".so"))


def require_fit(package: Path, machine: Machine, remedy: str) -> None:
    """Raises ``DeployError`` if ``package`` contains a compiled module that ``machine`` cannot load."""
    for name, made_for in _misfits(package, machine):
        raise DeployError(f"the package contains {name}, which is compiled for {made_for}, but {machine}: {remedy}")


def _misfits(package: Path, machine: Machine) -> Iterator[tuple[str, str]]:
    """Yields each compiled module that ``machine`` cannot load, with the platform that the module was compiled for."""
    with zipfile.ZipFile(package) as file:
        for name in file.namelist():
            with file.open(name) as content:
                found = compiled_for(content.read(HEADER_BYTES))
            if not found:
                continue
            system, processors = found
            base = name.rpartition("/")[2]
            tag = re.search(r"\.cpython-(\d)(\d+)", base)
            known = not tag or base.endswith(machine.suffixes[0])
            if system != machine.system or machine.processor not in processors or not known:
                python = f" with Python {tag[1]}.{tag[2]}" if tag else ""
                yield base, f"{' and '.join(processors)} {system}{python}"


def compiled_for(header: bytes) -> tuple[str, list[str]] | None:
    """Returns the operating system and processors that a file is compiled for, or None if the file is not compiled."""
    if header.startswith(b"\x7fELF"):
        [processor] = struct.unpack_from("<H", header, 18)
        return "Linux", [ELF_PROCESSORS.get(processor, f"processor {processor}")]
    if header.startswith(b"\xcf\xfa\xed\xfe"):
        return "macOS", _mach_o(*struct.unpack_from("<I", header, 4))
    if header.startswith(b"\xca\xfe\xba\xbe"):
        # A macOS binary for several processors begins with an 8-byte header and 20 bytes per processor.
        [number] = struct.unpack_from(">I", header, 4)
        return "macOS", _mach_o(*(struct.unpack_from(">I", header, 8 + 20 * each)[0] for each in range(number)))
    return None


def _mach_o(*processors: int) -> list[str]:
    return [MACH_O_PROCESSORS.get(each, f"processor {each}") for each in processors]
