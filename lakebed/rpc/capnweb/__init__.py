"""Cap'n Web: an object-capability RPC protocol over any stream of text messages. No socket is opened here."""
