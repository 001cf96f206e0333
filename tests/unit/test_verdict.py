import pytest

from queue_middleware.verdict import follow_up, trouble

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("status", "headers", "least", "most"),
    [
        (500, (), 4, 6),
        (500, ((b"retry-after", b"60"),), 4, 6),
        (404, (), 4, 6),
        (429, (), 4, 6),
        (429, ((b"retry-after", b"60"),), 60, 60),
        (503, ((b"retry-after", b"60"),), 60, 60),
        (503, ((b"retry-after", b"1"),), 4, 6),
    ],
)
def test_the_wait_after_an_answer(status, headers, least, most):
    for _ in range(50):
        assert least <= follow_up(status, headers, 1, (5.0,), NOW) <= most


@pytest.mark.parametrize(("status", "attempt"), [(200, 1), (204, 1), (302, 1), (410, 1), (500, 2), (503, 2)])
def test_there_is_nothing_to_wait_for(status, attempt):
    assert follow_up(status, ((b"retry-after", b"60"),), attempt, (5.0,), NOW) is None


@pytest.mark.parametrize(
    ("status", "said"),
    [(200, None), (299, None), (302, "answered 302; redirects are not followed"), (404, "answered 404"), (500, "answered 500")],
)
def test_what_is_wrong_with_an_answer(status, said):
    assert trouble(status) == said


def test_a_redirect_says_where_it_leads_without_what_may_be_secret():
    for location, shown in (
        (b"https://new.example/hook?token=secret#x", "https://new.example/hook"),
        (b"https://user:secret@new.example:8443/", "https://new.example:8443/"),
        (b"/login?next=secret", "https://a.example/login"),
        (b"//other.example/x", "https://other.example/x"),
        (b"https://a.example/\x1b[31m", "https://a.example/?[31m"),
    ):
        said = trouble(302, ((b"location", location),), "https://a.example/hook?key=secret")
        assert said == f"answered 302; redirects are not followed, this one leads to {shown}"
    for nothing in (b"", b"https://[", b"mailto:a@b.example"):
        assert trouble(301, ((b"location", nothing),), "https://a.example/") == "answered 301; redirects are not followed"
    assert len(trouble(302, ((b"location", b"/" + b"x" * 9000),), "https://a.example/")) < 400
