import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient

from queue_middleware.receivers.flask import verified_webhook
from queue_middleware.verify import VerifiedWebhook, WebhookVerifier
from tests.support.webhook_sender import BODY, JWKS_URL, NOW, Sender


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture
def site(sender) -> FlaskClient:
    app = Flask(__name__)
    verified = verified_webhook(WebhookVerifier(JWKS_URL, sync_client=sender.sync_client, clock=lambda: NOW), max_body=1000)

    @app.post("/done")
    @verified
    def done(webhook: VerifiedWebhook) -> dict[str, object]:
        """What the view is for."""
        return {"id": webhook.webhook_id, "payload": webhook.json()["payload"]}

    @app.post("/of/<user>/done")
    @verified
    def of(webhook: VerifiedWebhook, user: str) -> str:
        return f"{user}: {webhook.request_id}"

    @app.post("/async/done")
    @verified
    async def later(webhook: VerifiedWebhook) -> str:
        return webhook.request_id

    return app.test_client()


def test_the_view_receives_the_verified_webhook(sender, site):
    for headers in (sender.webhook(), sender.standard(), {**sender.webhook(), **sender.standard()}):
        response = site.post("/done", headers=headers, data=BODY)
        assert response.status_code == 200
        assert response.json["payload"] == {"ä": 1}
    assert sender.fetches == 1


@pytest.mark.parametrize(("path", "text"), [("/of/you/done", "you: id"), ("/async/done", "id")])
def test_views_of_other_kinds(sender, site, path, text):
    assert site.post(path, headers=sender.webhook(), data=BODY).text == text


def test_a_bad_webhook_does_not_reach_the_view(sender, site):
    response = site.post("/done", headers=sender.webhook(), data=BODY + b" ")
    assert response.status_code == 401
    assert "changed in transit" in response.text
    assert site.post("/done", data=BODY).status_code == 401


def test_without_keys_the_response_is_503(sender, site):
    sender.response = httpx.ConnectError("down")
    assert site.post("/done", headers=sender.webhook(), data=BODY).status_code == 503


def test_a_form_is_not_parsed_before_verification(sender, site):
    """Flask must not parse the body as a form before it is verified."""
    headers = {**sender.webhook(), "content-type": "application/x-www-form-urlencoded"}
    assert site.post("/of/you/done", headers=headers, data=BODY).text == "you: id"


def test_the_size_of_a_body_is_limited_before_it_is_verified(sender, site):
    body = BODY + b" " * (1000 - len(BODY))
    assert site.post("/done", headers=sender.webhook(body=body), data=body).status_code == 200
    assert site.post("/done", headers=sender.webhook(body=body), data=body + b" ").status_code == 413


def test_the_view_keeps_its_name(site):
    view = site.application.view_functions["done"]
    assert (view.__name__, view.__doc__) == ("done", "What the view is for.")
