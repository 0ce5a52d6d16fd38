"""Untrusted SQL: each query has a process, which reads only the files passed to it and can be killed."""
