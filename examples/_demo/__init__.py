"""Shared by the demos: servers, a client that checks its requests, a display. Not part of any service."""
