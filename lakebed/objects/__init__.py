"""Durable objects: lock, manifest, pool, wake-ups, the namespace, and the clients of a namespace elsewhere."""
