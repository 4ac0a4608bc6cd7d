"""What the kernels of a bundle are: figures from its code objects and facts, floors, budgets, a page."""
