"""Parts that the demos share: servers, a client that checks its requests, and a display. No service uses them."""
