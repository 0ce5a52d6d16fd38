"""When a job is due, and the task that runs it."""
