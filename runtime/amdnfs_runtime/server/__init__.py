"""The HTTP server: OpenAI's interface in front of an `AsyncEngine`. Needs `amdnfs[serve]`."""
