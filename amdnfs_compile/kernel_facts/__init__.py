"""What the kernels of a program do and what their code is: measured during a compile, kept in the artifact's facts."""

from amdnfs_compile.kernel_facts.program import ASSEMBLY_FLAG, ProgramFacts, measure_program

__all__ = ["ASSEMBLY_FLAG", "ProgramFacts", "measure_program"]
