// Stands in for `dcmjs`: Cornerstone asks a whole DICOM parser for its logger and a dictionary, but no DICOM
// is parsed in the browser (frames arrive decoded). Saves more than a megabyte of script.

const silent = () => undefined;

const logger = () => ({
  getLogger: logger,
  setLevel: silent,
  getLevel: () => 4,
  trace: silent,
  debug: silent,
  info: silent,
  warn: silent,
  error: (...args) => console.error(...args),
});

class Absent {
  constructor() {
    throw new Error("DICOM is not parsed in the browser");
  }
}

export const log = logger();

export const constants = {
  IMPLICIT_LITTLE_ENDIAN: "1.2.840.10008.1.2",
  EXPLICIT_LITTLE_ENDIAN: "1.2.840.10008.1.2.1",
  DEFLATED_EXPLICIT_LITTLE_ENDIAN: "1.2.840.10008.1.2.1.99",
  EXPLICIT_BIG_ENDIAN: "1.2.840.10008.1.2.2",
};

export default {
  log,
  constants,
  data: { DicomMetaDictionary: { dictionary: {}, nameMap: {} } },
  async: { AsyncDicomReader: Absent },
  utilities: { DicomMetadataListener: Absent },
};
