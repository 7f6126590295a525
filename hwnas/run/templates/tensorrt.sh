trtexec --onnx=model.onnx --noTF32 $precision --saveEngine=model.engine  # builds
trtexec --loadEngine=model.engine                                        # times
