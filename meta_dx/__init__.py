"""meta_dx: few-shot diagnosis of rare diseases from DICOM studies.

The rooms follow the flow of the data (see ``docs/architecture.md``): ``dicom`` reads studies, ``cohort`` keeps
tables, images and splits, ``episodes`` draws tasks, ``learners`` hold one paper a file, ``training`` meta-trains,
``inference`` exports and serves through ONNX Runtime, ``evaluation`` measures. Research use only.
"""

import os

# Telemetry of every dependency is off before any of them can be imported: a hospital's machine calls nobody.
for _name, _value in {
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    # Not telemetry: threads that wait must not spin, or two of them on a busy machine take five times as long.
    "OMP_WAIT_POLICY": "PASSIVE",
}.items():
    os.environ.setdefault(_name, _value)
del _name, _value

__version__ = "0.1.0"
