"""From a trained learner to a prediction: export, the bundle, and ONNX Runtime."""

#: Raise when the same choice on the same data would give another bundle than before.
EXPORT_VERSION = 3
