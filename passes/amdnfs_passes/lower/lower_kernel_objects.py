"""Embed the kernels that ride in a program as executable objects for its device.

While the program was linalg on tensors, nothing named the device; now the module does. IREE takes an executable's
objects as they are for the target that they are listed under.

Before::

    module {
      util.global private @device = #hal.device.target<"hip", [#hal.executable.target<"rocm", "rocm-hsaco-fb">]> : !hal.device
      hal.executable.source private @k attributes {amdnfs.object = dense<[1, 2]> : tensor<2xi8>, amdnfs.object_path = "k.hsaco"} {
        hal.executable.export public @entry ordinal(0) layout(#hal.pipeline.layout<constants = 3, bindings = [#hal.pipeline.binding<storage_buffer>]>) count(%device: !hal.device) -> (index, index, index) {
          %c1 = arith.constant 1 : index
          hal.return %c1, %c1, %c1 : index, index, index
        } <workgroup_size = [64 : index, 1 : index, 1 : index]>
      }
    }

After::

    module {
      util.global private @device = #hal.device.target<"hip", [#hal.executable.target<"rocm", "rocm-hsaco-fb">]> : !hal.device
      hal.executable.source private @k <objects = #hal.executable.objects<{#hal.executable.target<"rocm", "rocm-hsaco-fb"> = [#hal.executable.object<{path = "k.hsaco", data = dense<[1, 2]> : tensor<2xi8>}>]}>> {
        hal.executable.export public @entry ordinal(0) layout(#hal.pipeline.layout<constants = 3, bindings = [#hal.pipeline.binding<storage_buffer>]>) count(%device: !hal.device) -> (index, index, index) {
          %c1 = arith.constant 1 : index
          hal.return %c1, %c1, %c1 : index, index, index
        } <workgroup_size = [64 : index, 1 : index, 1 : index]>
      }
    }

Leaves alone: executables without `amdnfs.object`. Refuses (as an error) a module without exactly one device target.
Source: IREE `HALOps.td`, `hal.executable.source`; `HALAttrs.td`, `hal.executable.objects`.
"""  # noqa: E501 - attributes cannot be broken over lines

from __future__ import annotations

import re
from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, PassError, Refusal
from amdnfs_passes.ir import Attribute, Module, walk
from amdnfs_passes.kernels.embed import OBJECT_ATTRIBUTE, PATH_ATTRIBUTE

_TARGET = "#hal.executable.target<"


@dataclass(frozen=True, kw_only=True)
class LowerKernelObjectsPass(ModulePass):
    """Moves code objects from our attribute into `objects`."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        target: str | None = None
        for op in walk(module.operation):
            if op.name != "hal.executable.source" or OBJECT_ATTRIBUTE not in op.attributes:
                continue
            target = target or _device_target(module)
            path, code = op.attributes[PATH_ATTRIBUTE], op.attributes[OBJECT_ATTRIBUTE]
            op.attributes["objects"] = Attribute.parse(
                f"#hal.executable.objects<{{{target} = [#hal.executable.object<{{path = {path}, data = {code}}}>]}}>"
            )
            del op.attributes[OBJECT_ATTRIBUTE], op.attributes[PATH_ATTRIBUTE]
            rewrites += 1
        return rewrites


def _device_target(module: Module) -> str:
    """The text of the one executable target of the module's devices.

    Raises:
        PassError: If there is none or more than one.
    """
    texts = [
        str(child.operation.attributes["initial_value"])
        for child in module.body.operations
        if child.operation.name == "util.global" and "initial_value" in child.operation.attributes
    ]
    found = {target for text in texts if "#hal.device.target<" in text for target in _targets(text)}
    if len(found) != 1:
        names = sorted(re.sub(r"\{.*", "", target) for target in found)
        raise PassError(f"pass lower-kernel-objects: the module must have one device target, it has {names or 'none'}")
    return found.pop()


def _targets(text: str) -> list[str]:
    """All `#hal.executable.target<...>` in the text of an attribute, brackets balanced."""
    result = []
    begin = text.find(_TARGET)
    while begin >= 0:
        depth, end = 0, begin
        for end in range(begin, len(text)):
            depth += (text[end] == "<") - (text[end] == ">" and text[end - 1] != "-")
            if text[end] == ">" and text[end - 1] != "-" and depth == 0:
                break
        result.append(text[begin : end + 1])
        begin = text.find(_TARGET, end)
    return result
