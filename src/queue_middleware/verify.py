"""Verification of webhooks, for receivers: the public name of `receivers.verifier`."""

from __future__ import annotations

from .receivers.verifier import FAL_JWKS_URL, TOLERANCE, VerifiedWebhook, WebhookVerifier

__all__ = ["FAL_JWKS_URL", "TOLERANCE", "VerifiedWebhook", "WebhookVerifier"]
