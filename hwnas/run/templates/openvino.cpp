#include <openvino/openvino.hpp>

// Times on this card are of the model with OpenVINO's own hard-swish and its gate in the place of
// HardSigmoid, as `fused` of example.py puts them; without that, networks that have it are slower.
ov::Core core;
ov::CompiledModel model = core.compile_model(
    "$file", "CPU", ov::inference_num_threads($threads), ov::num_streams(1),
    ov::hint::inference_precision(ov::element::f32), ov::hint::enable_cpu_pinning(false));
ov::InferRequest request = model.create_infer_request();
float* input = request.get_input_tensor().data<float>();  // $layout, $values values
request.infer();
const float* logits = request.get_output_tensor().data<float>();
