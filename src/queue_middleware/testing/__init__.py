"""Support for the tests of services that use the queue. pytest loads `pytest_plugin` itself.

May import: everything below `middleware`, but only when a test uses it: pytest loads the plugin in every run.
Begin with `pytest_plugin`.
"""
