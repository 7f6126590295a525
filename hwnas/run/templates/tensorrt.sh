trtexec --loadEngine=model.plan  # where the card's version of TensorRT and GPU are
trtexec --onnx=model.onnx --noTF32 $precision --saveEngine=other.plan  # elsewhere
