"""A DIMSE service: associations, and what is the matter when there is none; queries by C-FIND."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from meta_dx.dicom.pacs.address import DimseAddress
from meta_dx.dicom.pacs.archive import LISTING_BYTES, MOST_MATCHES, attempts
from meta_dx.dicom.pacs.connections import measure, prepared
from meta_dx.dicom.pacs.dimse_requests import Match, query_of
from meta_dx.dicom.pacs.options import PacsOptions
from meta_dx.dicom.pacs.store import SUCCESS, quiet_entity
from meta_dx.errors import MetaDxError

FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # study root
_PENDING = (0xFF00, 0xFF01)


class DimseService:
    """A DIMSE service, with the association that queries share.

    Parameters
    ----------
    address : DimseAddress
        The service.
    options : PacsOptions
        Section ``[pacs]``.
    """

    def __init__(self, address: DimseAddress, options: PacsOptions) -> None:
        self._address, self._options = address, options
        self._association: Any = None

    def close(self) -> None:
        """End the association."""
        if self._association is not None and self._association.is_established:
            self._association.release()
        self._association = None

    def _find(self, level: str, keys: dict[str, str]) -> list[Match]:
        """Ask, and ask again where the association breaks; what was asked for is asked for whole."""
        for attempt in attempts(self._options):
            try:
                if self._association is None or not self._association.is_established:
                    self._association = self._associate([(FIND, None)])
                return self._matches(level, keys)
            except MetaDxError as fault:
                self._association = None
                if attempt.last or fault.code not in ("pacs_unreachable", "pacs_broke_off"):
                    raise
        raise RuntimeError("there is at least one attempt")

    def _matches(self, level: str, keys: dict[str, str]) -> list[Match]:
        found = []
        measured = measure(self._association)
        measured.begin(LISTING_BYTES)
        for status, identifier in self._association.send_c_find(query_of(level, keys), FIND):
            code = status.get("Status")
            if code is None and measured.exceeded:
                raise self._error(
                    "pacs_paging",
                    f"answers one query with more than {LISTING_BYTES >> 20} MiB: narrow the filters down",
                )
            if code is None:
                raise self._error("pacs_broke_off", "broke off in the middle of its answer: try again later")
            if code in _PENDING:
                if (
                    identifier is None
                ):  # it could not be decoded: a match that is left out is an instance that is lost
                    self._association.abort()
                    raise self._error(
                        "pacs_broke_off", "answers with a match that cannot be decoded: try again later"
                    )
                found.append(Match(identifier, keys))
                self._require_bounded(len(found))
            elif code != SUCCESS:
                raise self._error(
                    "pacs_refused", f"refuses the query (status {code:#06x}): check the filters"
                )
        return found

    def _require_bounded(self, matches: int) -> None:
        if matches > MOST_MATCHES:
            self._association.abort()
            raise self._error("pacs_paging", "lists more than a million matches: narrow the filters down")

    def _associate(
        self,
        contexts: list[tuple[str, str | None]],
        arriving: Callable[[Any], int] | None = None,
        missing: str = "",
    ) -> Any:
        from pynetdicom import build_role, evt

        entity = quiet_entity(
            self._options.ae_title, self._options.connect_seconds, self._options.read_seconds
        )
        for abstract, syntax in contexts:
            entity.add_requested_context(abstract, *([syntax] if syntax else []))
        sent_to_us = {abstract for abstract, syntax in contexts if syntax and arriving is not None}
        handlers: list[Any] = [(evt.EVT_CONN_OPEN, prepared)]
        if arriving is not None:
            handlers.append((evt.EVT_C_STORE, arriving))
        association = entity.associate(
            self._address.host,
            self._address.port,
            ae_title=self._address.ae_title,
            ext_neg=[build_role(abstract, scp_role=True) for abstract in sorted(sent_to_us)] or None,
            evt_handlers=handlers,
            tls_args=self._tls(),
        )
        if not association.is_established:
            raise self._not_established(association)
        if contexts[0][0] not in {context.abstract_syntax for context in association.accepted_contexts}:
            association.release()
            raise self._error(
                "pacs_refused",
                missing
                or "does not offer this service to us: have query and retrieve allowed for our AE title",
            )
        return association

    def _not_established(self, association: Any) -> MetaDxError:
        answer = association.acceptor.primitive
        if association.is_rejected:
            reasons: dict[tuple[object, object], str] = {
                (1, 3): f"does not know us as {self._options.ae_title}: have this AE title entered there, "
                "or set [pacs] ae_title",
                (1, 7): f"is not called {self._address.ae_title}: check the AE title in the address",
            }
            reason = (getattr(answer, "result_source", None), getattr(answer, "diagnostic", None))
            refused = (
                f"refuses the association: check its AE title ({self._address.ae_title}) and ours "
                f"({self._options.ae_title}), and whether it allows us in"
            )
            return self._error("pacs_refused", reasons.get(reason, refused))
        what = "cannot be reached, or does not speak DICOM there: check host and port, or try again later"
        if self._address.tls:
            what = "cannot be reached with TLS: check host, port and [pacs] ca_file, or try again later"
        return self._error("pacs_unreachable", what)

    def _tls(self) -> tuple[ssl.SSLContext, str] | None:
        if not self._address.tls:
            return None
        # Those that DICOMweb trusts; without a file, ssl would ask the environment.
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        try:
            context = ssl.create_default_context(cafile=self._options.ca_file or DEFAULT_CA_BUNDLE_PATH)
        except OSError as fault:
            raise MetaDxError(
                "no_ca_file",
                f"[pacs] ca_file {self._options.ca_file} cannot be used: name certificates (PEM).",
            ) from fault
        return context, self._address.host

    def _error(self, code: str, what: str) -> MetaDxError:
        return MetaDxError(code, f"The archive {self._address.host}:{self._address.port} {what}.")
