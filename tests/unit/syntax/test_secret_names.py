import pytest

from queue_middleware.syntax.secret_names import is_secret_name


@pytest.mark.parametrize(
    "name",
    ["authorization", "Cookie", "X-Api-Key", "x-goog-signature", "api_key", "access_token", "PASSWORD", "x-csrf", "sessionid"],
)
def test_names_of_secrets(name):
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["content-type", "accept", "user-agent", "traceparent", "idempotency-key", "prompt", "seed"])
def test_names_of_other_values(name):
    assert not is_secret_name(name)


def test_names_that_the_operator_adds():
    assert is_secret_name("X-Customer", {"x-customer"})
    assert not is_secret_name("x-customer")
