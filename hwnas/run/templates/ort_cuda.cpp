#include <onnxruntime_cxx_api.h>

Ort::Env env;
Ort::SessionOptions options;
options.AppendExecutionProvider_CUDA(OrtCUDAProviderOptions{});
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
