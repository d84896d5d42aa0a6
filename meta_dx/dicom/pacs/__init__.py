"""Archives of a hospital (PACS) as sources: DICOMweb, DIMSE, and a listener that modalities may send to."""
