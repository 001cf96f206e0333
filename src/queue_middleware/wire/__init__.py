"""How things are spelled on the wire: pure functions between bytes and models."""
