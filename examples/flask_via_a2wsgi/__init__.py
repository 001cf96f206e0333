"""The same service in Flask: a WSGI application behind a2wsgi, with a queue, a receiver and a demo."""
