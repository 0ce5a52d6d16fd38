"""The RPC endpoint: which methods it offers, over HTTP and WebSocket."""
