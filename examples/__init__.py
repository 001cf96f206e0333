"""Example services, each with a demo that runs in one command."""
