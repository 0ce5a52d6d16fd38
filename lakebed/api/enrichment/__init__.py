"""What the server adds to an event: client IP, user agent, place."""
