"""For the tests of services that have a queue. `pytest_plugin` is loaded by pytest itself."""
