"""Calls, dispatch, stubs and pipelining; capnweb/ is their wire protocol."""
