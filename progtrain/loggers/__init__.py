"""Where a run is told beside its own files: TensorBoard, Weights & Biases, MLflow."""
