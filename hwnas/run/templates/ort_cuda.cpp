#include <onnxruntime_cxx_api.h>

Ort::Env env;
Ort::SessionOptions options;
options.AddConfigEntry("session.disable_cpu_ep_fallback", "1");
OrtCUDAProviderOptionsV2* cuda = nullptr;
Ort::ThrowOnError(Ort::GetApi().CreateCUDAProviderOptions(&cuda));
const char* names[] = {"use_tf32"};  // fp32 as it was verified; ONNX Runtime 1.17: set the variable
const char* values[] = {"0"};        // NVIDIA_TF32_OVERRIDE=0 instead
Ort::ThrowOnError(Ort::GetApi().UpdateCUDAProviderOptions(cuda, names, values, 1));
options.AppendExecutionProvider_CUDA_V2(*cuda);
Ort::GetApi().ReleaseCUDAProviderOptions(cuda);
Ort::Session session(env, "$file", options);

std::vector<float> input($values);  // $layout, prepared as above
std::vector<int64_t> shape{$shape};
auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
Ort::Value tensor = Ort::Value::CreateTensor<float>(
    memory, input.data(), input.size(), shape.data(), shape.size());
const char* reads[] = {"$input"};
const char* gives[] = {"$output"};
auto outputs = session.Run(Ort::RunOptions{}, reads, &tensor, 1, gives, 1);
const float* logits = outputs[0].GetTensorData<float>();
