"""API keys: what they allow, where they are stored, and the cache that a server asks."""
