"""API keys: their scopes and limits, their storage, and a cache of them for servers."""
