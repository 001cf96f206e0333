"""What the demonstrations stand on: servers that come and go, requests that are watched, a display. Not part of any service."""
