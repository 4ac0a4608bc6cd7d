"""Where the emulator is: the folder that AMDNFS_HIP_DYLIB names, else our own library, which is built on first use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from amdnfs_runtime.device import HIP_DYLIB_VARIABLE
from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.execution import Emulation


def emulator_folder() -> Path:
    """The folder with the `libamdhip64.so` to emulate with.

    Raises:
        ArtifactError: If our own library is wanted and cannot be built: no C compiler, no instruction tables.
    """
    named = os.environ.get(HIP_DYLIB_VARIABLE)
    if named:
        return Path(named)
    from amdnfs_hipemu import EmulatorError, library_folder

    try:
        return library_folder()
    except EmulatorError as error:
        raise ArtifactError(str(error)) from error


def emulation(settings: Mapping[str, str] | None = None) -> Emulation:
    """How to emulate, with further environment for the emulator's process.

    Raises:
        ArtifactError: If our own library is wanted and cannot be built.
    """
    return Emulation(library=emulator_folder(), settings=settings or {})
