#include <tensorflow/lite/interpreter_builder.h>
#include <tensorflow/lite/kernels/register.h>
#include <tensorflow/lite/model_builder.h>

auto model = tflite::FlatBufferModel::BuildFromFile("$file");
tflite::ops::builtin::BuiltinOpResolver resolver;
tflite::InterpreterBuilder builder(*model, resolver);
builder.SetNumThreads($threads);
std::unique_ptr<tflite::Interpreter> interpreter;
builder(&interpreter);
interpreter->AllocateTensors();
float* input = interpreter->typed_input_tensor<float>(0);  // channels last, $values values
interpreter->Invoke();
const float* logits = interpreter->typed_output_tensor<float>(0);
