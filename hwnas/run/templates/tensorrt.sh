trtexec --loadEngine=model.plan  # if it is here: in the TensorRT and on the GPU that built it
trtexec --onnx=model.onnx --noTF32 $precision --saveEngine=other.plan  # 11 and newer: no --int8, --fp16
