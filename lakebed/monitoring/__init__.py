"""What an operator looks at: check(), health, the state of each tier, live snapshots and totals."""
