// Small Acorn model files with random weights, in memory: for tests of the whole model, of the reader and of the
// programs. Factors are chosen so that every edge carries values of a sensible spread, neither zero nor saturated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "acorn_schema/scoring.h"
#include "tests/support/packed_weight.h"

namespace acorn::test {

/// Bytes at an address that is a multiple of a segment's alignment, as a mapped file is.
class AlignedBytes {
 public:
  AlignedBytes() = default;
  explicit AlignedBytes(const std::vector<uint8_t> &bytes);
  AlignedBytes(const AlignedBytes &other);
  AlignedBytes &operator=(const AlignedBytes &other);
  AlignedBytes(AlignedBytes &&) = default;
  AlignedBytes &operator=(AlignedBytes &&) = default;

  uint8_t *data() { return data_.get(); }
  const uint8_t *data() const { return data_.get(); }
  size_t size() const { return size_; }

 private:
  struct Free {
    void operator()(uint8_t *data) const;
  };
  std::unique_ptr<uint8_t[], Free> data_;
  size_t size_ = 0;
};

enum class Gating { kSilu, kGelu };
enum class Norms { kRms, kLayer };
enum class HeadWeights { kTied, kOwn };
enum class Mixer { kAttention, kStateSpace };
enum class GatedNorm { kGateFirst, kNormFirst };

/// The widths of a body that profiles narrow.
struct Widths {
  uint32_t k_dim = 0, v_dim = 0;  // of a head of attention, multiples of 16
  uint32_t ffn = 0;               // a multiple of the block
  uint32_t state_head_dim = 0;    // a multiple of 8
  uint32_t state_columns = 0;
  uint32_t expert_slices = 0;
};
struct ProfileSpec {
  uint32_t rate = 0;
  Widths widths;  // 0: the model's own
};

/// A model of the Llama family. Widths in grouped formats are multiples of the group.
struct ModelSpec {
  std::string name = "random";
  uint64_t seed = 1;
  uint32_t vocab_size = 67;
  uint32_t hidden = 64;
  uint32_t layers = 2;
  uint32_t heads = 4;
  uint32_t kv_heads = 2;
  uint32_t head_dim = 16;
  uint32_t rotary_dims = 16;
  uint32_t ffn = 96;
  uint32_t max_context = 64;
  uint32_t prefix_rows = 0;
  uint32_t kv_bits = 8;  // of a cache's elements; 4: behind a Hadamard transform of rotated heads
  uint32_t hadamard_block = 32;  // 1: the last linear layer of a block reads s15
  WeightKind linear;             // body's linear layers
  WeightKind head;               // the head, and the embedding
  HeadWeights head_weights = HeadWeights::kTied;
  Gating gating = Gating::kSilu;
  Norms norms = Norms::kRms;  // of the rows; those of the heads are RMSNorms
  bool bias = false;  // of every linear layer; where it is false, zero points alone are folded in
  bool qk_norm = false;
  double rope_base = 10000;
  std::vector<uint32_t> windows;  // of cache i: [i mod size], 0: none; empty: none anywhere
  bool sink_queries = true;       // of caches with windows behind a constant prefix
  std::vector<Mixer> mixers = {Mixer::kAttention};  // of layer i: [i mod size]
  // State-space layers.
  uint32_t state_heads = 4, state_head_dim = 8, state_groups = 1, state_columns = 16, taps = 4;
  uint32_t norm_groups = 1;  // of the gated norm, each with gains of its own
  GatedNorm gated_norm = GatedNorm::kGateFirst;
  bool state_ffn = true;  // false: they have no second half
  // What a profile asks of a file. A widened one computes what it would without: the body uses a part of what is stored.
  bool widened = false;         // weights, caches and states hold random rows and columns beside those in use
  bool sorted_pairs = false;    // of heads before attention
  uint32_t v_dim = 0;           // of a head's values; 0: head_dim
  uint32_t attention_run = 0;   // outputs of a head that lie side by side; 0: all of them
  uint32_t scan_run = 0;        // the same of a recurrence
  std::vector<uint8_t> tokenizer;  // a tokenizer segment; empty: none
  // Routed experts in place of the second half of each layer; 0: none. ffn is then the width of the shared expert.
  uint32_t experts = 0;
  uint32_t top_k = 2;
  uint32_t expert_ffn = 64;                 // a multiple of 32
  std::vector<uint32_t> expert_slices;      // their widths, multiples of 32, together expert_ffn; empty: one
  std::vector<WeightKind> expert_weights;   // of expert i: [i mod size]; their layouts without groups are the same
  Scoring scoring = Scoring::kSoftmaxOfChosen;
  bool shared_expert = false, shared_gate = false;
  // By rising rate and falling widths, of a file that is not widened. Narrower heads want sorted_pairs and runs that divide them;
  // head_dim is a multiple of 16, and k_panel or the group divides the kept depths.
  std::vector<ProfileSpec> profiles;
};

/// The file of `spec`: header, flatbuffer, segments, checksums.
AlignedBytes BuildModel(const ModelSpec &spec);

/// Sets the checksums of the header, the flatbuffer and every segment anew after a test has changed bytes on purpose.
void Reseal(AlignedBytes *file);

/// Writes `file` to `path`. Returns false if that fails.
bool WriteModel(const AlignedBytes &file, const std::string &path);

/// A set of specs with profiles, for parameterised tests.
std::vector<ModelSpec> ElasticSpecs();

/// A set of specs that covers every weight format and layout and every option of ModelSpec, for parameterised tests.
std::vector<ModelSpec> VariedSpecs();

}  // namespace acorn::test
