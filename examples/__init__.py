"""Services that somebody could have written, each with a demonstration that runs in one command."""
