"""The HTTP faces: thin endpoints between ASGI and the runtime's verbs."""
