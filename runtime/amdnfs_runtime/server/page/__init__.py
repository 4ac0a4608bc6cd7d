"""The page at `/`: a chat, and what the server does at the moment. One file, which asks nobody but this server."""
