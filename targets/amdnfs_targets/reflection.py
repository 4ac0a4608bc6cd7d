"""Names under which compiled functions tell their caller what they return (`iree.reflection`)."""

TOP_LOGITS_KEY = "amdnfs.top_logits"
"""How many logits of a row the function's first result holds."""
