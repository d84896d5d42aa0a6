"""Sign-ins under way: each is a secret in a browser's cookie, which this server knows as its own."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from dataclasses import dataclass

MINUTES = 10
"""How long somebody may stay at the provider."""


@dataclass(frozen=True)
class Attempt:
    """A sign-in under way; the browser holds the secret, everything else follows from it."""

    secret: str

    def derived(self, what: str) -> str:
        """Return state, nonce or verifier: 64 hex digits that tell nothing of the secret or of one another."""
        return hmac.new(self.secret.encode(), what.encode(), hashlib.sha256).hexdigest()


class Attempts:
    """Begins sign-ins, and knows them again: whoever has never begun one cannot make this server write anything."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._failed: dict[str, float] = {}
        self._lock = threading.Lock()

    def begin(self) -> Attempt:
        """Draw a new one."""
        drawn = f"{int(time.monotonic())}-{secrets.token_urlsafe(32)}"
        return Attempt(f"{drawn}-{self._mark(drawn)}")

    def known(self, secret: str) -> Attempt | None:
        """Return what a cookie holds; None where this server has not begun it, or too long ago."""
        drawn, _, mark = secret.rpartition("-")
        if not hmac.compare_digest(mark.encode(), self._mark(drawn).encode()):
            return None
        begun = int(drawn.partition("-")[0])
        return Attempt(secret) if time.monotonic() - begun < 60 * MINUTES else None

    def fails(self, attempt: Attempt) -> bool:
        """Take note that a sign-in came to nothing; return whether it is the first time."""
        moment = time.monotonic()
        with self._lock:
            # Whatever is older is not known any more.
            self._failed = {one: at for one, at in self._failed.items() if moment - at < 60 * MINUTES}
            first = attempt.secret not in self._failed
            self._failed.setdefault(attempt.secret, moment)
            return first

    def _mark(self, drawn: str) -> str:
        return hmac.new(self._key, drawn.encode(), hashlib.sha256).hexdigest()
