"""Ingestion, validation and predictions are partitioned by ingest batch; nothing is ever partitioned by study."""

from __future__ import annotations

import dagster as dg

#: One key a batch, ``b0001``, ``b0002`` …; the inbox sensor and ``make run`` add them.
ingest_batches = dg.DynamicPartitionsDefinition(name="ingest_batch")
