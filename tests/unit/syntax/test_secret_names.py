import pytest

from queue_middleware.syntax.secret_names import is_secret_header, is_secret_name


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


@pytest.mark.parametrize(
    "value", ["https://a.example/?q=1", "http://u:p@a.example", "Bearer abc", "whsec_abc", "eyJhbGciOi", "sk-1"]
)
def test_a_header_with_such_a_value_is_secret(value):
    assert is_secret_header("x-anything", value)


@pytest.mark.parametrize(
    "value", ["*/*", "?1", "text/html;q=0.9", "Mozilla/5.0 (X11; Linux x86_64)", "https://a.example/path", "key"]
)
def test_a_header_with_such_a_value_is_not(value):
    assert not is_secret_header("x-anything", value)
    assert is_secret_header("x-api-key", value)
