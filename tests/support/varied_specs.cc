#include "tests/support/model_builder.h"

namespace acorn::test {

std::vector<ModelSpec> VariedSpecs() {
  std::vector<ModelSpec> specs;
  const auto add = [&specs](const char *name, WeightKind linear, WeightKind head) -> ModelSpec & {
    ModelSpec spec;
    spec.name = name;
    spec.seed = 100 + specs.size();
    spec.linear = linear;
    spec.head = head;
    specs.push_back(spec);
    return specs.back();
  };
  const WeightKind w8{WeightFormat::kW8, Layout::kX16C8}, w8_narrow{WeightFormat::kW8, Layout::kX8C8};
  const WeightKind w4{WeightFormat::kW4, Layout::kX16C8}, w4_narrow{WeightFormat::kW4, Layout::kX8C8};
  const WeightKind w4g32{WeightFormat::kW4G32, Layout::kC4}, w4g64{WeightFormat::kW4G64, Layout::kC4};
  const WeightKind w4g128{WeightFormat::kW4G128, Layout::kC4}, w2g32{WeightFormat::kW2G32, Layout::kC4};

  add("w8_plain", w8, w8);
  {
    ModelSpec &spec = add("w8_narrow_odd_widths", w8_narrow, w8_narrow);
    spec.hidden = 51, spec.heads = 5, spec.kv_heads = 1, spec.head_dim = 10, spec.rotary_dims = 6;
    spec.ffn = 71, spec.hadamard_block = 1, spec.bias = true, spec.vocab_size = 41;
  }
  {
    ModelSpec &spec = add("w8_panels_own_head", {WeightFormat::kW8, Layout::kX16C8, 32}, {WeightFormat::kW8, Layout::kX8C2S4});
    spec.hidden = 83, spec.head_dim = 12, spec.rotary_dims = 12, spec.ffn = 160, spec.prefix_rows = 1;
    spec.head_weights = HeadWeights::kOwn;
  }
  {
    ModelSpec &spec = add("w4_channel_bias", w4, w8);
    spec.bias = true, spec.hidden = 75, spec.ffn = 128, spec.hadamard_block = 64;
  }
  {
    ModelSpec &spec = add("w4_narrow_gelu_panels", {WeightFormat::kW4, Layout::kX8C8, 48}, w4_narrow);
    spec.gating = Gating::kGelu, spec.qk_norm = true, spec.kv_heads = 4, spec.prefix_rows = 2, spec.ffn = 93;
    spec.hadamard_block = 1;
  }
  {
    ModelSpec &spec = add("w4g32_tied_groups", w4g32, w4g32);
    spec.prefix_rows = 1, spec.ffn = 192, spec.rope_base = 500000;
  }
  {
    ModelSpec &spec = add("w4g64_w8_head", w4g64, w8);
    spec.hidden = 128, spec.heads = 8, spec.ffn = 320, spec.prefix_rows = 2, spec.head_weights = HeadWeights::kOwn;
    spec.hadamard_block = 64;
  }
  {
    ModelSpec &spec = add("w4g128_wide_block", w4g128, w4g64);
    spec.hidden = 128, spec.heads = 4, spec.kv_heads = 4, spec.head_dim = 32, spec.rotary_dims = 24, spec.ffn = 384;
    spec.hadamard_block = 128, spec.layers = 1;
  }
  {
    ModelSpec &spec = add("w4g32_wide_input_qk_norm", w4g32, w8);
    spec.hadamard_block = 1, spec.qk_norm = true, spec.layers = 3, spec.head_dim = 24, spec.rotary_dims = 24;
    spec.prefix_rows = 1;
  }
  {
    ModelSpec &spec = add("w4_arm_layouts", {WeightFormat::kW4, Layout::kX16C1}, {WeightFormat::kW8, Layout::kX16C4, 16});
    spec.hidden = 61, spec.ffn = 96, spec.hadamard_block = 32;
  }
  {
    ModelSpec &spec = add("w8_kv4", w8, w8);
    spec.kv_bits = 4, spec.head_dim = 24, spec.rotary_dims = 20, spec.prefix_rows = 2;
  }
  {
    ModelSpec &spec = add("w8_layer_norms", w8, w8);
    spec.norms = Norms::kLayer, spec.bias = true, spec.hidden = 70, spec.rotary_dims = 4, spec.prefix_rows = 1;
    spec.head_weights = HeadWeights::kOwn;
  }
  {
    ModelSpec &spec = add("experts_w4g32", w4g32, w8);
    spec.experts = 7, spec.top_k = 2, spec.expert_weights = {w4g32};
  }
  {
    ModelSpec &spec = add("experts_of_all_widths_shared", w8, w8);
    spec.experts = 12, spec.top_k = 4, spec.expert_weights = {w8, w4g32, w4, w2g32, w4g64}, spec.expert_ffn = 128;
    spec.scoring = Scoring::kSoftmaxOfAll, spec.shared_expert = spec.shared_gate = true, spec.prefix_rows = 1;
  }
  {
    ModelSpec &spec = add("experts_sigmoid_whole_shared", w4g32, w4g32);
    spec.experts = 5, spec.top_k = 5, spec.expert_weights = {w8_narrow}, spec.expert_ffn = 96, spec.layers = 3;
    spec.scoring = Scoring::kSigmoidOfChosen, spec.shared_expert = true;
  }
  {
    ModelSpec &spec = add("experts_sigmoid", w8, w8);
    spec.experts = 9, spec.top_k = 1, spec.expert_weights = {w4g32, w8}, spec.scoring = Scoring::kSigmoid;
  }
  {
    ModelSpec &spec = add("state_space", w8, w8);
    spec.mixers = {Mixer::kStateSpace}, spec.state_ffn = false, spec.layers = 3;
    spec.state_groups = 2, spec.norm_groups = 4;
  }
  {
    ModelSpec &spec = add("state_space_odd_widths", w8_narrow, w8);
    spec.mixers = {Mixer::kStateSpace}, spec.state_ffn = false, spec.prefix_rows = 2, spec.bias = true, spec.hidden = 37;
    spec.state_heads = 3, spec.state_head_dim = 5, spec.state_columns = 7, spec.taps = 2, spec.gated_norm = GatedNorm::kNormFirst;
  }
  {
    ModelSpec &spec = add("state_space_hybrid", w4g32, w8);
    spec.mixers = {Mixer::kStateSpace, Mixer::kAttention, Mixer::kStateSpace}, spec.layers = 4, spec.prefix_rows = 1;
    spec.state_heads = 2, spec.state_head_dim = 48, spec.state_columns = 33, spec.taps = 8, spec.rotary_dims = 8;
    spec.norm_groups = 3, spec.gated_norm = GatedNorm::kNormFirst;
  }
  {
    ModelSpec &spec = add("state_space_hybrid_experts", w4g32, w8);
    spec.mixers = {Mixer::kStateSpace, Mixer::kAttention}, spec.state_head_dim = 16, spec.taps = 3;
    spec.experts = 6, spec.expert_weights = {w4g32}, spec.shared_expert = true;
  }
  {
    ModelSpec &spec = add("profile_w4g32", w4g32, w8);
    spec.widened = spec.sorted_pairs = true, spec.prefix_rows = 2, spec.bias = true, spec.layers = 3;
    spec.heads = 6, spec.head_dim = 32, spec.rotary_dims = 48, spec.v_dim = 24, spec.attention_run = 8;
  }
  {
    ModelSpec &spec = add("profile_w8_kv4", {WeightFormat::kW8, Layout::kX16C8, 32}, w8);
    spec.widened = spec.sorted_pairs = true, spec.kv_bits = 4, spec.prefix_rows = 1, spec.v_dim = 32, spec.attention_run = 16;
  }
  {
    ModelSpec &spec = add("profile_w4_wide_input", w4_narrow, w8);
    spec.widened = true, spec.hadamard_block = 1, spec.heads = 5, spec.kv_heads = 1, spec.v_dim = 10, spec.qk_norm = true;
    spec.attention_run = 5;
  }
  {
    ModelSpec &spec = add("profile_state_space", w4g32, w8);
    spec.widened = true, spec.mixers = {Mixer::kStateSpace, Mixer::kAttention}, spec.state_groups = 2, spec.norm_groups = 2;
    spec.state_head_dim = 40, spec.state_columns = 24, spec.scan_run = 8;
  }
  {
    ModelSpec &spec = add("profile_experts", w8, w8);
    spec.widened = spec.sorted_pairs = true, spec.experts = 6, spec.expert_weights = {w4g32}, spec.shared_expert = true;
    spec.shared_gate = true;
  }
  {
    ModelSpec &spec = add("experts_in_slices", w8, w8);
    spec.experts = 5, spec.top_k = 3, spec.expert_weights = {w4g32, w8, w2g32}, spec.expert_ffn = 224;
    spec.expert_slices = {96, 32, 64, 32}, spec.shared_expert = true;
  }
  add("window", w8, w8).windows = {7};
  {
    ModelSpec &spec = add("window_sinks", w4g32, w8);
    spec.windows = {5, 19}, spec.prefix_rows = 2, spec.heads = 6, spec.qk_norm = true;
  }
  {
    ModelSpec &spec = add("window_of_some_layers", w8, w8);
    spec.windows = {0, 9, 1}, spec.layers = 3, spec.prefix_rows = 1, spec.kv_bits = 4;
  }
  {
    ModelSpec &spec = add("window_plain_sinks", w8, w8);
    spec.windows = {16}, spec.prefix_rows = 3, spec.sink_queries = false, spec.sorted_pairs = spec.widened = true;
  }
  {
    ModelSpec &spec = add("window_hybrid", w8, w8);
    spec.mixers = {Mixer::kStateSpace, Mixer::kAttention}, spec.windows = {11}, spec.prefix_rows = 1;
  }
  return specs;
}

std::vector<ModelSpec> ElasticSpecs() {
  const WeightKind w8{WeightFormat::kW8, Layout::kX16C8}, w8_panels{WeightFormat::kW8, Layout::kX8C8, 16};
  const WeightKind w4g32{WeightFormat::kW4G32, Layout::kC4};
  std::vector<ModelSpec> specs(6);
  for (size_t i = 0; i < specs.size(); ++i) {
    specs[i].seed = 200 + i;
    specs[i].head = w8;
    specs[i].linear = w4g32;
    specs[i].sorted_pairs = true, specs[i].attention_run = specs[i].scan_run = 8;
  }
  {
    ModelSpec &spec = specs[0];
    spec.name = "elastic_dense", spec.linear = w8_panels, spec.prefix_rows = 2, spec.bias = true;
    spec.head_dim = 48, spec.rotary_dims = 24, spec.ffn = 192;
    spec.profiles = {{10, {32, 48, 160, 0, 0}}, {30, {32, 32, 96, 0, 0}}, {45, {16, 16, 64, 0, 0}}};
  }
  {
    ModelSpec &spec = specs[1];
    spec.name = "elastic_kv4_qk_norm", spec.kv_bits = 4, spec.qk_norm = true, spec.head_dim = 32, spec.rotary_dims = 32;
    spec.profiles = {{20, {16, 32, 64, 0, 0}}, {35, {16, 16, 32, 0, 0}}};
  }
  {
    ModelSpec &spec = specs[2];
    spec.name = "elastic_state_space", spec.mixers = {Mixer::kStateSpace}, spec.state_ffn = false, spec.layers = 3;
    spec.prefix_rows = 1, spec.state_head_dim = 24, spec.state_groups = 2, spec.state_columns = 48;
    spec.profiles = {{15, {0, 0, 0, 16, 48}}, {25, {0, 0, 0, 16, 32}}, {40, {0, 0, 0, 8, 16}}};
  }
  {
    ModelSpec &spec = specs[3];
    spec.name = "elastic_hybrid_experts", spec.mixers = {Mixer::kStateSpace, Mixer::kAttention}, spec.head_dim = 32;
    spec.state_head_dim = 16, spec.state_columns = 32, spec.taps = 3, spec.gated_norm = GatedNorm::kNormFirst;
    spec.experts = 6, spec.expert_weights = {w4g32}, spec.shared_expert = true;
    spec.profiles = {{25, {16, 16, 64, 8, 16}}};
  }
  {
    // Experts stay whole at the first rate.
    ModelSpec &spec = specs[4];
    spec.name = "elastic_experts", spec.head_dim = 32, spec.layers = 3, spec.experts = 7;
    spec.expert_weights = {w4g32, {WeightFormat::kW8, Layout::kX8C8}}, spec.expert_ffn = 160, spec.expert_slices = {64, 32, 64};
    spec.profiles = {{15, {16, 16}}, {25, {16, 16, 0, 0, 0, 2}}, {40, {16, 16, 0, 0, 0, 1}}};
  }
  {
    ModelSpec &spec = specs[5];
    spec.name = "elastic_window", spec.prefix_rows = 1, spec.head_dim = 32, spec.windows = {6, 13};
    spec.profiles = {{20, {16, 32, 64, 0, 0}}, {35, {16, 16, 32, 0, 0}}};
  }
  return specs;
}

}  // namespace acorn::test
