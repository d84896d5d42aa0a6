"""Signing in with OpenID Connect: authorization code flow with PKCE, state and nonce, by Authlib.

Nothing of a sign-in under way is kept on the server. The browser holds one random secret in a cookie; state, nonce and
code verifier are derived from it, so an answer of the provider fits the browser that asked and no other.
"""

from __future__ import annotations

import hmac
import io
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from meta_dx.errors import MetaDxError
from meta_dx.records.subjects import Subject
from meta_dx.review.openid_attempts import Attempt, Attempts
from meta_dx.review.openid_options import OpenIdOptions, is_safe_address

#: Signatures that are believed: made with a key that only the provider has. Never "none", never a shared secret.
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "Ed25519",
    "EdDSA",
)
_LEEWAY = 60  # seconds by which clocks may differ
_FRESH = 3600.0  # seconds after which the provider is asked for its addresses and keys again
_WAIT = (5, 15)  # seconds for a connection, and for an answer
_DEADLINE = 15.0  # seconds for the whole body of an answer, however it drips
_FAILED = 10.0  # seconds for which a provider that has failed is not asked again
_OTHERS = 2.0  # seconds that others wait for whoever is asking it just now
_LARGEST = 1 << 20  # bytes of an answer
_CLAIM = 255  # characters of a subject (OpenID Connect Core, 2)


@dataclass(frozen=True)
class Vouched:
    """Whom the provider vouches for.

    Parameters
    ----------
    subject : Subject
        What an account's subject is compared with, and its issuer.
    name : str
        What a new account would be called; may be empty.
    role : str, optional
        The role that the claim gives; None where roles are given here.
    """

    subject: Subject
    name: str = ""
    role: str | None = None


class OpenIdProvider:
    """The provider of ``[review.openid]``.

    Parameters
    ----------
    options : OpenIdOptions
        With an issuer.

    Raises
    ------
    MetaDxError
        ``no_authlib``, or what is wrong with the secret's file.
    """

    def __init__(self, options: OpenIdOptions) -> None:
        try:
            from authlib.integrations.requests_client import OAuth2Session
        except ModuleNotFoundError as fault:
            raise MetaDxError(
                "no_authlib",
                "[review.openid] needs Authlib, which is not installed: pip install 'meta-dx[openid]', or take "
                "the section out.",
            ) from fault
        self._session_class = OAuth2Session
        self._options, self._secret = options, options.secret()
        self._known: dict[str, Any] = {}
        self._keys: Any = None
        self._until = 0.0
        self._fault: MetaDxError | None = None
        self._asking = threading.Lock()
        self.attempts = Attempts()

    def address(self, attempt: Attempt, redirect: str) -> str:
        """Return where to send the browser.

        Parameters
        ----------
        attempt : Attempt
            Just begun.
        redirect : str
            Our address that the provider sends the browser back to.

        Raises
        ------
        MetaDxError
            ``openid_unreachable`` or ``openid_answer``.
        """
        known, options = self._discovered(), self._options
        with self._client(redirect) as client:
            more = {"prompt": options.prompt} if options.prompt else {}
            address, _ = client.create_authorization_url(
                known["authorization_endpoint"],
                state=attempt.derived("state"),
                nonce=attempt.derived("nonce"),
                code_verifier=attempt.derived("verifier"),
                **more,
            )
        return str(address)

    def leaving(self) -> str:
        """Return where somebody can sign out of the provider, too; empty where it has not been told."""
        found = self._known.get("end_session_endpoint", "")
        return found if is_safe_endpoint(found) else ""

    def vouched(self, attempt: Attempt, answer: Mapping[str, str], redirect: str) -> Vouched:
        """Take the provider's answer, fetch the ID token for its code, and check it.

        Parameters
        ----------
        attempt : Attempt
            What this browser began.
        answer : mapping of str to str
            Parameters of the address that the browser came back to.
        redirect : str
            As given to :meth:`address`.

        Raises
        ------
        MetaDxError
            ``openid_refused`` where the answer or the token is not to be believed; ``openid_unreachable`` or
            ``openid_answer``. No sentence repeats a value of the answer.
        """
        state = answer.get("state", "")
        if not hmac.compare_digest(state.encode(), attempt.derived("state").encode()):
            raise _refused("the answer does not belong to this browser's sign-in")
        if answer.get("iss", self._options.issuer) != self._options.issuer:
            raise _refused("the answer comes from another provider")
        if answer.get("error") or not answer.get("code"):
            raise _refused("the provider has not signed you in")
        token = self._token(answer["code"], attempt, redirect)
        return self._whom(self._checked(token, attempt))

    def _token(self, code: str, attempt: Attempt, redirect: str) -> dict[str, Any]:
        import requests
        from authlib.common.errors import AuthlibBaseError
        from urllib3.exceptions import HTTPError

        known = self._discovered()
        try:
            with self._client(redirect) as client:
                token = client.fetch_token(
                    known["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=attempt.derived("verifier"),
                    allow_redirects=False,
                )
        except AuthlibBaseError:
            raise _refused("the provider does not take the code it has given") from None
        except (requests.RequestException, HTTPError, OSError):
            raise self._unreachable() from None
        except ValueError:
            raise self._answer("no token") from None
        if not isinstance(token, dict) or not isinstance(token.get("id_token"), str):
            raise self._answer("no ID token")
        return token

    def _checked(self, token: dict[str, Any], attempt: Attempt) -> dict[str, Any]:
        """Check signature, issuer, audience, times and nonce of an ID token."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import InvalidKeyIdError, JoseError
        from joserfc.jws import JWSRegistry

        registry = JWSRegistry(algorithms=list(ALGORITHMS), strict_check_header=False)
        options = self._options
        try:
            try:
                read = jwt.decode(token["id_token"], self._key_set(), registry=registry)
            except (InvalidKeyIdError, ValueError):  # it has changed its keys
                read = jwt.decode(token["id_token"], self._key_set(again=True), registry=registry)
            wanted = {
                "iss": {"essential": True, "value": options.issuer},
                "aud": {"essential": True, "value": options.client_id},
            }
            known = {
                "nonce": attempt.derived("nonce"),
                "client_id": options.client_id,
                "access_token": token.get("access_token"),
            }
            claims = CodeIDToken(read.claims, read.header, wanted, known)
            claims.validate(leeway=_LEEWAY)
        except (JoseError, ValueError, TypeError, KeyError):
            raise _refused("its ID token is not valid") from None
        return dict(claims)

    def _whom(self, claims: dict[str, Any]) -> Vouched:
        options = self._options
        subject = claims.get(options.subject_claim)
        if not isinstance(subject, str) or not 0 < len(subject) <= _CLAIM or not subject.isprintable():
            raise _refused(f"its ID token has no claim '{options.subject_claim}' that could name you")
        if options.subject_claim == "email" and claims.get("email_verified") is not True:
            raise _refused("it has not verified your e-mail address")
        name = claims.get(options.name_claim)
        whom = Subject(options.issuer, subject)
        return Vouched(whom, name if isinstance(name, str) else "", self._role(claims))

    def _role(self, claims: dict[str, Any]) -> str | None:
        if not self._options.role_claim:
            return None
        found = claims.get(self._options.role_claim)
        values = {found} if isinstance(found, str) else set(found or ()) if isinstance(found, list) else set()
        for role, wanted in vars(self._options.roles).items():
            if values & set(wanted):
                return str(role)
        raise MetaDxError(
            "openid_no_role", "You are known, but none of your groups has a role on these pages: ask for one."
        )

    def _discovered(self) -> dict[str, Any]:
        """Return the provider's addresses; one thread asks for them, others go by the old ones or give up soon."""
        if time.monotonic() >= self._until:
            if self._asking.acquire(timeout=0 if self._known else _OTHERS):
                try:
                    if time.monotonic() >= self._until:
                        self._ask()
                finally:
                    self._asking.release()
            elif not self._known:
                raise self._unreachable()
        if self._fault is not None:
            raise MetaDxError(self._fault.code, str(self._fault))
        return self._known

    def _ask(self) -> None:
        issuer = self._options.issuer
        try:
            found = self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
            if found.get("issuer") != issuer:
                raise self._answer("another issuer than [review.openid] names")
            for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                if not is_safe_endpoint(found.get(name)):
                    raise self._answer(f"no safe {name}")
        except MetaDxError as fault:
            self._fault, self._until = fault, time.monotonic() + _FAILED
        else:
            self._known, self._keys, self._fault = found, None, None
            self._until = time.monotonic() + _FRESH

    def _key_set(self, again: bool = False) -> Any:
        from joserfc.jwk import KeySet

        if self._keys is None or again:
            self._keys = KeySet.import_key_set(self._get(self._discovered()["jwks_uri"]))  # type: ignore[arg-type]
        return self._keys

    def _client(self, redirect: str) -> Any:
        options = self._options
        offered = self._known.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        with_secret = "client_secret_basic" if "client_secret_basic" in offered else "client_secret_post"
        client = self._session_class(
            options.client_id,
            self._secret or None,
            token_endpoint_auth_method=with_secret if self._secret else "none",
            scope=" ".join(dict.fromkeys(("openid", *options.scopes))),
            redirect_uri=redirect,
            code_challenge_method="S256",
            default_timeout=_WAIT,
        )
        client.trust_env = False
        client.verify = options.ca_file or True
        client.hooks["response"].append(_read_in_time)
        return client

    def _get(self, address: str) -> dict[str, Any]:
        import requests
        from urllib3.exceptions import HTTPError

        try:
            with requests.Session() as session:
                session.trust_env = False  # no proxy or login that nobody wrote into [review.openid]
                session.verify = self._options.ca_file or True
                with session.get(address, timeout=_WAIT, allow_redirects=False, stream=True) as answer:
                    body, status = _body(answer), answer.status_code
        except (requests.RequestException, HTTPError, OSError):
            raise self._unreachable() from None
        if status >= 500:
            raise self._unreachable()
        import json

        try:
            found = json.loads(body) if status == 200 else None
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._answer("no JSON object where its addresses or keys should be")
        return found

    def _unreachable(self) -> MetaDxError:
        return MetaDxError(
            "openid_unreachable",
            f"{self._options.issuer} cannot be reached: try again later, or sign in with a password.",
        )

    def _answer(self, what: str) -> MetaDxError:
        return MetaDxError(
            "openid_answer", f"{self._options.issuer} answers with {what}: check [review.openid]."
        )


def _body(answer: Any) -> bytes:
    """Read the body of an answer; what has not come in time never comes."""
    late = threading.Event()

    def end() -> None:
        late.set()
        with suppress(ValueError, RuntimeError, OSError):  # it has just come
            answer.raw.shutdown()

    timer = threading.Timer(_DEADLINE, end)
    timer.daemon = True
    timer.start()
    try:
        body: bytes = answer.raw.read(_LARGEST, decode_content=True)
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError
    return body


def _read_in_time(answer: Any, **_: Any) -> None:
    answer.raw = io.BytesIO(_body(answer))


def is_safe_endpoint(address: object) -> bool:
    """Tell whether an address of the provider, query or not, is of HTTPS or of this machine."""
    return isinstance(address, str) and is_safe_address(address.partition("?")[0])


def _refused(why: str) -> MetaDxError:
    return MetaDxError("openid_refused", f"The sign-in was refused: {why}. Try again from the beginning.")
