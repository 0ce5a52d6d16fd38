"""One interface to an object that is open here or on a server; the commands and the MCP server use it."""
