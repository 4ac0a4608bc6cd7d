"""Names of targets and products as people type them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amdnfs_runtime.errors import UsageError

if TYPE_CHECKING:
    from amdnfs_targets.products import Product


def target_named(name: str | None) -> str | None:
    """The canonical name of a target; None stays None.

    Raises:
        UsageError: If there is no such target; says which there are.
    """
    from amdnfs_targets.registry import UnknownTargetError, get_target

    try:
        return None if name is None else get_target(name).name
    except UnknownTargetError as error:
        raise UsageError(str(error)) from error


def product_named(name: str | None) -> Product | None:
    """The product of a name; None stays None.

    Raises:
        UsageError: If there is no such product; says which there are.
    """
    from amdnfs_targets.products import UnknownProductError, get_product

    try:
        return None if name is None else get_product(name)
    except UnknownProductError as error:
        raise UsageError(str(error)) from error
