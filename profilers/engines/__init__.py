"""What runtimes share: ONNX Runtime sessions, CUDA, TensorRT builds. None is a runtime itself."""
