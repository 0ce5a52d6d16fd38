"""Monitoring of an object: check(), health, the state of each tier, live snapshots and totals."""
