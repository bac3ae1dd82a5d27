// A simulated device that holds a model file, and what tests of streaming experts ask of it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "acorn.h"
#include "acorn_schema/file.h"
#include "acorn_simulated.h"
#include "tests/support/model_builder.h"
#include "tests/support/thread_port.h"

namespace acorn::test {

inline std::vector<int32_t> SomeTokens(uint32_t vocab_size, size_t count) {
  Random random(23);
  std::vector<int32_t> tokens(count);
  for (int32_t &token : tokens) token = static_cast<int32_t>(random.Between(0, vocab_size - 1));
  return tokens;
}

/// A device whose file is `file`, in front of threads.
class Storage {
 public:
  explicit Storage(const AlignedBytes &file, acorn_simulated_options options = {}, uint32_t threads = 1) : inner_(0, threads) {
    options.struct_size = sizeof options;
    options.file = file.data();
    options.file_bytes = file.size();
    if (options.timing.depth == 0) options.timing = acorn_device_find("ufs31")->timing;
    simulated_.reset(acorn_simulated_create(&options, inner_.get()));
    if (simulated_ != nullptr) acorn_simulated_port(simulated_.get(), &port_);
  }
  acorn_port *port() { return &port_; }
  acorn_simulated *device() { return simulated_.get(); }

 private:
  struct Destroy {
    void operator()(acorn_simulated *simulated) const { acorn_simulated_destroy(simulated); }
  };
  ThreadPort inner_;
  std::unique_ptr<acorn_simulated, Destroy> simulated_;
  acorn_port port_ = {};
};

/// The image without its experts: a prefix of the file.
inline AlignedBytes ResidentPart(const AlignedBytes &file) {
  const uint64_t experts = LoadLittle64(file.data() + kHeaderExperts);
  return AlignedBytes(std::vector<uint8_t>(file.data(), file.data() + experts));
}

inline acorn_options Streaming(uint64_t slots, uint64_t slot_bytes, uint32_t policy = ACORN_EXPERTS_LFRU) {
  acorn_options options = {};
  options.expert_cache_bytes = slots * slot_bytes;
  options.expert_policy = policy;
  return options;
}

}  // namespace acorn::test
