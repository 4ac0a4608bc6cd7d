"""`amdnfs verify`: is a bundle whole, and do its programs compute what the model computes?"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import click
from amdnfs_runtime.bundle import read_manifest, verify_files
from amdnfs_runtime.errors import ArtifactError, UsageError


@click.command(name="verify", epilog="Example: amdnfs verify my-llama.amdnfs --against ./my-llama --target cpu")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--against", type=click.Path(path_type=Path), metavar="MODEL", help="Folder of the model it was made from."
)
@click.option("--target", help="Target to run [default: the best for this machine].")
@click.option("--emulate", is_flag=True, help="Insist on the stand-in HIP library that AMDNFS_HIP_DYLIB names.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random prompts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(
    bundle: Path, against: Path | None, target: str | None, emulate: bool, seed: int, as_json: bool
) -> None:
    """Check the digests of BUNDLE and, with --against, its logits against transformers in f32."""
    manifest = read_manifest(bundle)
    if against is not None and not against.is_dir():  # before the weights are read
        raise UsageError(f"--against {against}: no such folder; give that of the model the bundle was made from")
    verify_files(bundle, manifest)
    values: dict[str, Any] = {"files": len(manifest.files), "checks": []}
    if emulate:
        _check_emulation(manifest.targets[target].kind if target is not None and target in manifest.targets else None)
    if against is not None:
        from amdnfs_compile.verify import verify_bundle

        checks = verify_bundle(bundle, against, target, seed=seed)
        values["checks"] = [
            {
                "name": c.name,
                "error": c.error,
                "tolerance": c.tolerance if math.isfinite(c.tolerance) else None,
                "same_argmax": c.same_argmax,
                "right": c.is_right,
            }
            for c in checks
        ]
    if as_json:
        click.echo(json.dumps(values, indent=1, sort_keys=True))
    else:
        click.echo(f"{values['files']} files agree with their digests")
        for row in values["checks"]:
            if row["tolerance"] is None:
                click.echo(f"  {row['name']}: {row['error']:.1e}, same first choice in {row['same_argmax']:.1%}")
                continue
            verdict = "right" if row["right"] else "WRONG"
            click.echo(f"  {row['name']:<28} error {row['error']:.1e} of {row['tolerance']:.0e} allowed: {verdict}")
        if against is None:
            click.echo("numbers were not compared; give the model's folder with --against")
    wrong = [row["name"] for row in values["checks"] if not row["right"]]
    if wrong:
        raise ArtifactError(f"{bundle}: the logits differ from transformers' in: {', '.join(wrong)}")


def _check_emulation(kind: str | None) -> None:
    if kind != "hip":
        raise UsageError("--emulate runs hip programs; name one of the bundle's gfx targets with --target")
    if not os.environ.get("AMDNFS_HIP_DYLIB"):
        raise UsageError("--emulate: AMDNFS_HIP_DYLIB must name a folder with a stand-in libamdhip64.so")
