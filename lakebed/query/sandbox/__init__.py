"""SQL of strangers: a process for each question, which sees what it was given and can be killed."""
