"""Schedules, which decide when a job is due, and the task that runs the job."""
