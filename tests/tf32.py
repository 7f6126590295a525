"""TF32, in which NVIDIA's tensor cores multiply, for modelled engines: 10 bits of mantissa.

Source: NVIDIA, "A100 Tensor Core GPU Architecture", section "TF32": inputs of a product are
rounded, sums are fp32.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper


def rounded(values):
    """float32 values rounded to the nearest with 10 bits of mantissa."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def model(data, folder):
    """Bytes of an ONNX file, its float weights rounded and inside; folder has external ones."""
    found = onnx.load_from_string(data)
    onnx.load_external_data_for_model(found, str(Path(folder)))
    for tensor in found.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = rounded(numpy_helper.to_array(tensor))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return found.SerializeToString()
