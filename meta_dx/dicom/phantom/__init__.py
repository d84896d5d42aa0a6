"""The demo cohort: DICOM studies of invented diseases, with the faults of a real export.

Each disease is a combination of image traits (``docs/demo-cohort.md``). The pipeline reads these files as it
reads any other; nothing in it knows where they come from.
"""

from meta_dx.dicom.phantom.cohort import PhantomSummary, write_phantom

__all__ = ["PhantomSummary", "write_phantom"]
