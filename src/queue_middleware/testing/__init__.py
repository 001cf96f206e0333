"""Support for the tests of services that use the queue. pytest loads `pytest_plugin` itself."""
