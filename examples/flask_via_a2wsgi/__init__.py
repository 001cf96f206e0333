"""The same darkroom in Flask: a WSGI application behind a2wsgi, with a queue."""
