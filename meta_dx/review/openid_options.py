"""Section ``[review.openid]`` of ``cohort.toml``: who else may vouch for readers."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from meta_dx.dicom.pacs.address import is_loopback
from meta_dx.errors import MetaDxError, OptionChecks, refuse_values

SECRET_VARIABLE = "META_DX_OPENID_SECRET"  # noqa: S105 (the name of a variable)
_PROMPTS = ("", "login", "select_account")


@dataclass(frozen=True)
class OpenIdRoles:
    """Section ``[review.openid.roles]``: which values of the claim give which role.

    Parameters
    ----------
    lead, adjudicator, reader, administrator : tuple of str
        The first of them, in this order, that has one of the values of the claim is the role.
    """

    lead: tuple[str, ...] = ()
    adjudicator: tuple[str, ...] = ()
    reader: tuple[str, ...] = ()
    administrator: tuple[str, ...] = ()


@dataclass(frozen=True)
class OpenIdOptions:
    """Section ``[review.openid]``; without an issuer nobody signs in that way.

    Parameters
    ----------
    issuer : str
        Address of the provider, exactly as it calls itself.
    client_id : str
        What the provider calls these pages.
    secret_file : str
        File that holds the client secret and that only its owner may read. Empty: the variable
        ``META_DX_OPENID_SECRET``; without that the client is a public one (PKCE alone).
    label : str
        What the button says after "Sign in with".
    subject_claim : str
        The claim that an account's subject is compared with.
    role_claim : str
        The claim that decides the role at every sign-in, by ``roles``. Empty: roles are given here.
    roles : OpenIdRoles
        Which values of it give which role; somebody with none of them is refused.
    create_accounts : bool
        Make an account for a subject that has none; needs ``role_claim``.
    name_claim : str
        What such an account is called.
    scopes : tuple of str
        Asked for beside ``openid``.
    prompt : {"", "login", "select_account"}
        ``"login"`` has the provider ask for the password each time, for computers that several people share.
    ca_file : str
        Certificates (PEM) to trust instead of the system's.
    """

    issuer: str = ""
    client_id: str = ""
    secret_file: str = ""
    label: str = "your hospital account"
    subject_claim: str = "sub"
    role_claim: str = ""
    roles: OpenIdRoles = field(default_factory=OpenIdRoles)
    create_accounts: bool = False
    name_claim: str = "preferred_username"
    scopes: tuple[str, ...] = ("profile",)
    prompt: str = ""
    ca_file: str = ""

    def __post_init__(self) -> None:
        checks: OptionChecks = [
            (
                "issuer",
                not self.issuer or is_safe_address(self.issuer),
                "an https:// address (http:// on this machine only)",
            ),
            ("client_id", bool(self.client_id) or not self.issuer, "the name that the provider has given"),
            ("subject_claim", bool(self.subject_claim), "the name of a claim"),
            ("name_claim", bool(self.name_claim), "the name of a claim"),
            ("label", 0 < len(self.label) <= 60, "1 to 60 characters"),
            ("prompt", self.prompt in _PROMPTS, "'', 'login' or 'select_account'"),
            (
                "create_accounts",
                bool(self.role_claim) or not self.create_accounts,
                "true only with a role_claim, which says who may do what",
            ),
            (
                "role_claim",
                not self.role_claim or any(vars(self.roles).values()),
                "a claim only with values in [review.openid.roles]",
            ),
        ]
        refuse_values(self, checks)

    def secret(self) -> str:
        """Return the client secret; empty for a public client.

        Raises
        ------
        MetaDxError
            ``bad_openid_secret`` or ``open_openid_secret`` (others may read the file).
        """
        if not self.secret_file:
            return os.environ.get(SECRET_VARIABLE, "")
        path = Path(self.secret_file)
        try:
            with path.open(encoding="utf-8") as stream:
                if stat.S_IMODE(os.fstat(stream.fileno()).st_mode) & 0o077:
                    raise MetaDxError(
                        "open_openid_secret",
                        f"[review.openid] secret_file {path} may be read by others: run 'chmod 600' on it, "
                        "and have the secret changed.",
                    )
                found = stream.read().strip()
        except (OSError, UnicodeDecodeError) as fault:
            kind = type(fault).__name__
            raise MetaDxError(
                "bad_openid_secret", f"[review.openid] secret_file {path} cannot be read ({kind})."
            ) from None
        if not found:
            raise MetaDxError("bad_openid_secret", f"[review.openid] secret_file {path} is empty.")
        return found


def is_safe_address(text: object) -> bool:
    """Tell whether an address is of HTTPS, or of this machine; without login, query or fragment."""
    try:
        parts = urlsplit(str(text))
        host = parts.hostname or ""
    except ValueError:
        return False
    plain = parts.username is None and not parts.query and not parts.fragment
    return (
        bool(host) and plain and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
    )
