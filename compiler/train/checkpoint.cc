#include "train/checkpoint.h"

#include "base/error.h"

namespace acorn::compiler {
namespace {

void PutMatrix(Archive *archive, const std::string &name, const QuantizedMatrix &matrix) {
  archive->Put<int64_t>(name + ".shape", {static_cast<int64_t>(matrix.format), matrix.n, matrix.k});
  archive->Put(name + ".weights", matrix.weights);
  archive->Put(name + ".multipliers", matrix.multipliers);
  archive->Put(name + ".scale", matrix.scale);
}

QuantizedMatrix GetMatrix(const Archive &archive, const std::string &name) {
  const std::vector<int64_t> shape = archive.Get<int64_t>(name + ".shape");
  QuantizedMatrix matrix;
  if (shape.size() == 3) {
    matrix.format = static_cast<WeightFormat>(shape[0]);
    matrix.n = shape[1];
    matrix.k = shape[2];
  }
  matrix.weights = archive.Get<int8_t>(name + ".weights");
  matrix.multipliers = archive.Get<uint8_t>(name + ".multipliers");
  matrix.scale = archive.Get<double>(name + ".scale");
  const bool fits = shape.size() == 3 && matrix.n >= 0 && matrix.k >= 0 && matrix.n < (int64_t{1} << 31) &&
                    matrix.k < (int64_t{1} << 31) && static_cast<int64_t>(matrix.weights.size()) == matrix.n * matrix.k &&
                    static_cast<int64_t>(matrix.scale.size()) == matrix.n &&
                    static_cast<int64_t>(matrix.multipliers.size()) ==
                        (matrix.group() == 0 ? 0 : matrix.n * (matrix.k / matrix.group()));
  if (!fits) throw Error(ExitCode::kIo, "checkpoint: weight " + name + " has no such shape; remove it to start anew");
  return matrix;
}

void PutRow(Archive *archive, const std::string &name, const RowVector &row) {
  archive->Put(name, row.data(), static_cast<size_t>(row.size()));
}

RowVector GetRow(const Archive &archive, const std::string &name) {
  const std::vector<float> values = archive.Get<float>(name);
  return Eigen::Map<const RowVector>(values.data(), static_cast<int64_t>(values.size()));
}

/// The fields of a layer in one place for both directions.
template <typename Scales, typename Number, typename Heads, typename Zero>
void VisitScales(Scales *s, const Number &number, const Heads &heads, const Zero &zero) {
  for (double *field : {&s->attn_in, &s->q16, &s->k16, &s->v16, &s->q_normed16, &s->k_normed16, &s->attn_out, &s->o16, &s->mid16,
                        &s->ffn_in, &s->gate16, &s->up16, &s->glu_largest, &s->down_in, &s->down16, &s->out16}) {
    number(field);
  }
  heads("q8", &s->q8);
  heads("k8", &s->k8);
  heads("v8", &s->v8);
  for (int32_t *field : {&s->attn_in_zero, &s->attn_out_zero, &s->ffn_in_zero, &s->down_in_zero}) zero(field);
}

/// The same of a state-space layer's, where others have vectors without elements.
template <typename Scales, typename Number, typename Units>
void VisitStateSpaceScales(Scales *s, const Number &number, const Units &units) {
  for (double *field : {&s->gate16, &s->scan16, &s->gated_largest, &s->normed16}) number(field);
  units("ssm.conv_in16", &s->conv_in16);
  units("ssm.step16", &s->step16);
  units("ssm.x16", &s->x16);
  units("ssm.b16", &s->b16);
  units("ssm.c16", &s->c16);
  units("ssm.state", &s->state);
}

/// The convolution's taps [channels, taps].
void PutTaps(Archive *archive, const std::string &name, const Matrix &taps) {
  archive->Put<int64_t>(name + ".shape", {taps.rows(), taps.cols()});
  archive->Put(name, taps.data(), static_cast<size_t>(taps.size()));
}

Matrix GetTaps(const Archive &archive, const std::string &name) {
  const std::vector<int64_t> shape = archive.Get<int64_t>(name + ".shape");
  const std::vector<float> values = archive.Get<float>(name);
  const bool fits = shape.size() == 2 && shape[0] >= 0 && shape[1] >= 0 && shape[0] < (int64_t{1} << 31) &&
                    shape[1] < (int64_t{1} << 31) && static_cast<int64_t>(values.size()) == shape[0] * shape[1];
  if (!fits) throw Error(ExitCode::kIo, "checkpoint: " + name + " has no such shape; remove it to start anew");
  return Eigen::Map<const Matrix>(values.data(), shape[0], shape[1]);
}

template <typename Layer, typename Row, typename Weight>
void VisitLayer(Layer *layer, const Row &row, const Weight &weight) {
  row("attn_norm", &layer->attn_norm);
  row("ffn_norm", &layer->ffn_norm);
  row("attn_norm_bias", &layer->attn_norm_bias);
  row("ffn_norm_bias", &layer->ffn_norm_bias);
  row("q_norm", &layer->q_norm);
  row("k_norm", &layer->k_norm);
  row("qkv_bias", &layer->qkv_bias);
  row("o_bias", &layer->o_bias);
  row("gate_up_bias", &layer->gate_up_bias);
  row("down_bias", &layer->down_bias);
  row("ssm.conv_bias", &layer->ssm.conv_bias);
  row("ssm.step_bias", &layer->ssm.step_bias);
  row("ssm.decay", &layer->ssm.decay);
  row("ssm.skip", &layer->ssm.skip);
  row("ssm.norm", &layer->ssm.norm);
  weight("qkv", &layer->qkv);
  weight("o", &layer->o);
  weight("gate_up", &layer->gate_up);
  weight("down", &layer->down);
}

std::string LayerName(size_t layer) { return "layer" + std::to_string(layer) + "."; }

}  // namespace

void PutModel(Archive *archive, const QuantizedModel &model) {
  archive->Put("prefix_tokens", model.frame.prefix_tokens);
  archive->Put<int64_t>("ffn", {model.frame.ffn.padded, model.frame.ffn.block});
  archive->Put<int64_t>("writer", {static_cast<int64_t>(model.frame.writer.hadamard_block),
                                   static_cast<int64_t>(model.frame.writer.channel_layouts.w8),
                                   static_cast<int64_t>(model.frame.writer.channel_layouts.w4)});
  archive->Put<int64_t>("cache", {model.frame.writer.cache.bits, model.frame.writer.cache.head_block});
  archive->PutOne("state_block", model.frame.writer.state_block);
  archive->PutOne("stream_scale", model.stream_scale);
  PutMatrix(archive, "embedding", model.embedding);
  archive->PutOne("layers", static_cast<int64_t>(model.layers.size()));
  for (size_t i = 0; i < model.layers.size(); ++i) {
    QuantizedLayer layer = model.layers[i];
    const std::string name = LayerName(i);
    std::vector<double> numbers;
    std::vector<int32_t> zeros;
    const auto put_number = [&](double *field) { numbers.push_back(*field); };
    const auto put_units = [&](const char *field, std::vector<double> *units) { archive->Put(name + field, *units); };
    VisitScales(&layer.scales, put_number, put_units, [&](int32_t *field) { zeros.push_back(*field); });
    VisitStateSpaceScales(&layer.ssm.scales, put_number, put_units);
    PutTaps(archive, name + "ssm.conv", layer.ssm.conv);
    archive->Put(name + "scales", numbers);
    archive->Put(name + "zeros", zeros);
    VisitLayer(
        &layer, [&](const char *field, RowVector *row) { PutRow(archive, name + field, *row); },
        [&](const char *field, QuantizedMatrix *matrix) { PutMatrix(archive, name + field, *matrix); });
    const InputTypes &inputs = layer.inputs;
    archive->Put<int64_t>(name + "inputs", {static_cast<int64_t>(inputs.attn_in), static_cast<int64_t>(inputs.ffn_in),
                                            static_cast<int64_t>(inputs.down_in)});
    const LayerWidths &widths = layer.widths;
    archive->Put<int64_t>(name + "widths", {widths.ffn, widths.qk, widths.v, widths.state, widths.channels});
    archive->Put(name + "prefix_k", layer.prefix_k);
    archive->Put(name + "prefix_v", layer.prefix_v);
    archive->Put(name + "ssm.prefix_conv", layer.ssm.prefix_conv);
    archive->Put(name + "ssm.prefix_state", layer.ssm.prefix_state);
  }
  PutRow(archive, "head.norm", model.head.norm);
  PutRow(archive, "head.norm_bias", model.head.norm_bias);
  archive->PutOne("head.in_scale", model.head.in_scale);
  archive->PutOne("head.in_zero", model.head.in_zero);
  PutMatrix(archive, "head.weight", model.head.weight);
  archive->Put("head.embedding_scale", model.head.embedding_scale);
}

QuantizedModel GetModel(const Archive &archive) {
  QuantizedModel model;
  model.frame.prefix_tokens = archive.Get<int32_t>("prefix_tokens");
  const std::vector<int64_t> ffn = archive.Get<int64_t>("ffn"), writer = archive.Get<int64_t>("writer");
  const std::vector<int64_t> cache = archive.Get<int64_t>("cache");
  const auto layers = archive.GetOne<int64_t>("layers");
  if (ffn.size() != 2 || writer.size() != 3 || cache.size() != 2 || layers < 0) {
    throw Error(ExitCode::kIo, "checkpoint: not of this version; remove it to start anew");
  }
  model.frame.ffn = {ffn[0], ffn[1]};
  model.frame.writer.hadamard_block = static_cast<uint32_t>(writer[0]);
  model.frame.writer.channel_layouts = {static_cast<Layout>(writer[1]), static_cast<Layout>(writer[2])};
  model.frame.writer.cache = {static_cast<int>(cache[0]), cache[1]};
  model.frame.writer.state_block = archive.GetOne<uint32_t>("state_block");
  model.stream_scale = archive.GetOne<double>("stream_scale");
  model.embedding = GetMatrix(archive, "embedding");
  for (int64_t i = 0; i < layers; ++i) {
    QuantizedLayer layer;
    const std::string name = LayerName(static_cast<size_t>(i));
    const std::vector<double> numbers = archive.Get<double>(name + "scales");
    const std::vector<int32_t> zeros = archive.Get<int32_t>(name + "zeros");
    size_t number = 0, zero = 0;
    const auto get_number = [&](double *field) { *field = numbers.at(number++); };
    const auto get_units = [&](const char *field, std::vector<double> *units) { *units = archive.Get<double>(name + field); };
    VisitScales(&layer.scales, get_number, get_units, [&](int32_t *field) { *field = zeros.at(zero++); });
    VisitStateSpaceScales(&layer.ssm.scales, get_number, get_units);
    layer.ssm.conv = GetTaps(archive, name + "ssm.conv");
    VisitLayer(
        &layer, [&](const char *field, RowVector *row) { *row = GetRow(archive, name + field); },
        [&](const char *field, QuantizedMatrix *matrix) { *matrix = GetMatrix(archive, name + field); });
    const std::vector<int64_t> inputs = archive.Get<int64_t>(name + "inputs");
    const auto type = [&](size_t input) { return static_cast<EdgeType>(inputs.at(input)); };
    layer.inputs = {type(0), type(1), type(2)};
    const std::vector<int64_t> widths = archive.Get<int64_t>(name + "widths");
    layer.widths = {widths.at(0), widths.at(1), widths.at(2), widths.at(3), widths.at(4)};
    layer.prefix_k = archive.Get<int8_t>(name + "prefix_k");
    layer.prefix_v = archive.Get<int8_t>(name + "prefix_v");
    layer.ssm.prefix_conv = archive.Get<int16_t>(name + "ssm.prefix_conv");
    layer.ssm.prefix_state = archive.Get<int32_t>(name + "ssm.prefix_state");
    model.layers.push_back(std::move(layer));
  }
  model.head.norm = GetRow(archive, "head.norm");
  model.head.norm_bias = GetRow(archive, "head.norm_bias");
  model.head.in_scale = archive.GetOne<double>("head.in_scale");
  model.head.in_zero = archive.GetOne<int32_t>("head.in_zero");
  model.head.weight = GetMatrix(archive, "head.weight");
  model.head.embedding_scale = archive.Get<double>("head.embedding_scale");
  return model;
}

void PutTensors(Archive *archive, const std::string &name, const std::vector<torch::Tensor> &tensors) {
  for (size_t i = 0; i < tensors.size(); ++i) {
    const torch::Tensor tensor = tensors[i].contiguous();
    archive->Put(name + std::to_string(i), static_cast<const uint8_t *>(tensor.data_ptr()), tensor.nbytes());
  }
}

void GetTensors(const Archive &archive, const std::string &name, std::vector<torch::Tensor> *tensors) {
  for (size_t i = 0; i < tensors->size(); ++i) {
    const std::string entry = name + std::to_string(i);
    const std::vector<uint8_t> bytes = archive.Get<uint8_t>(entry);
    torch::Tensor &tensor = (*tensors)[i];
    if (bytes.size() != tensor.nbytes() || !tensor.is_contiguous()) {
      throw Error(ExitCode::kIo, "checkpoint: " + entry + " has another size; remove it to start anew");
    }
    if (!bytes.empty()) std::memcpy(tensor.data_ptr(), bytes.data(), bytes.size());
  }
}

}  // namespace acorn::compiler
