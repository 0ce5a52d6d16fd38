"""Fields that the server adds to events of browsers and phones: client address, user agent, location."""
