// A model file by anybody, its checksums right or wrong: acorn_plan and acorn_model_open agree, and what opens runs. An input is a
// file; its header's checksum chooses the options.
#include "acorn.h"
#include "acorn_schema/file.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/utf8.h"
#include "tests/support/thread_port.h"

namespace acorn::fuzz {
namespace {

constexpr uint64_t kMostBlockBytes = 16 << 20;  // a caller's limit: larger plans are declined
constexpr uint32_t kContext = 12;

/// A port that reads experts from the image. Reads past its end fail, as a file's would.
struct ImagePort {
  ImagePort(const ExactBytes &image_in, uint32_t features) : image(image_in) {
    port.struct_size = sizeof port;
    port.ctx = this;
    port.cpu_features = features;
    port.read = [](void *ctx, void *to, uint64_t offset, size_t bytes) {
      const ExactBytes &file = static_cast<ImagePort *>(ctx)->image;
      if (offset > file.size() || bytes > file.size() - offset) return 1;
      std::memcpy(to, file.data() + offset, bytes);
      return 0;
    };
  }
  const ExactBytes &image;
  acorn_port port = {};
};

bool Is(acorn_status status, std::initializer_list<acorn_status> allowed) {
  return std::find(allowed.begin(), allowed.end(), status) != allowed.end();
}

/// Of a call that computes tokens: an expert's record is looked at when it is first used.
void RequireComputed(acorn_status status) {
  Require(Is(status, {ACORN_OK, ACORN_ERR_DAMAGED, ACORN_ERR_INVALID, ACORN_ERR_STORAGE, ACORN_ERR_CONTEXT_FULL}),
          "tokens of a model that opened");
}

void RunText(acorn_model *model, acorn_session *session, uint64_t choice) {
  constexpr char kText[] = "Hello <s> w\xc3\xb6rld\n 12 <|user|>\xff";
  int32_t ids[256];
  size_t count = 0;
  const acorn_status status = acorn_tokenize(model, ids, 256, &count, kText, sizeof kText - 1, static_cast<uint32_t>(choice % 8));
  Require(Is(status, {ACORN_OK, ACORN_ERR_TEXT, ACORN_ERR_BUFFER, ACORN_ERR_UNSUPPORTED, ACORN_ERR_ARGUMENT}), "a text's ids");
  if (status == ACORN_OK) RequireComputed(acorn_session_prefill(session, ids, std::min<size_t>(count, 3)));
  const char *const stops[] = {"ab"};
  std::string text;
  acorn_generation generation = {};
  generation.struct_size = sizeof generation;
  generation.sampling.struct_size = sizeof generation.sampling;
  generation.sampling.temperature_q16 = static_cast<uint32_t>(choice >> 8) % (4 << 16);
  generation.sampling.top_k = static_cast<uint32_t>(choice >> 24) % 8;
  generation.sampling.top_p_q16 = static_cast<uint32_t>(choice >> 16) % 70000;
  generation.sampling.repetition_penalty_q16 = static_cast<uint32_t>(choice >> 20) % 100000;
  generation.sampling.seed = choice;
  generation.max_tokens = 16;
  generation.stop_strings = stops;
  generation.stop_count = 1;
  generation.ctx = &text;
  generation.callback = [](void *ctx, int32_t, const char *bytes, size_t length) {
    static_cast<std::string *>(ctx)->append(bytes, length);
    return 0;
  };
  uint32_t reason = 0;
  const acorn_status generated = acorn_session_generate(session, &reason, &count, &generation);
  Require(Is(generated, {ACORN_OK, ACORN_ERR_STATE, ACORN_ERR_TOKEN, ACORN_ERR_ARGUMENT, ACORN_ERR_DAMAGED, ACORN_ERR_INVALID,
                         ACORN_ERR_STORAGE}),
          "a generation");
  Require(IsUtf8(text), "generated text is UTF-8");
}

void RunSession(acorn_model *model, const acorn_memory_plan &plan, uint32_t vocab_size, uint64_t choice) {
  acorn_session *session = nullptr;
  Require(acorn_session_open(&session, model) == ACORN_OK, "a session of a model that opened");
  int32_t tokens[3];
  for (int i = 0; i < 3; ++i) tokens[i] = static_cast<int32_t>((choice >> (8 * i)) % vocab_size);
  uint32_t rates[16];
  size_t rate_count = 0;
  Require(acorn_model_rates(model, rates, 16, &rate_count) == ACORN_OK && rate_count == plan.rates, "the rates of the plan");
  // From the widest body down, on one conversation.
  for (size_t i = 0; i < rate_count; ++i) {
    Require(acorn_session_set_rate(session, rates[i]) == ACORN_OK, "a higher rate that the file holds");
    RequireComputed(acorn_session_prefill(session, tokens, 3));
    RequireComputed(acorn_session_decode(session, nullptr, tokens[i % 3]));
  }
  const ExactBytes snapshot(acorn_session_snapshot_bytes(session), 8);
  Require(acorn_session_save(session, snapshot.data(), snapshot.size()) == ACORN_OK, "a snapshot");
  Require(acorn_session_load(session, snapshot.data(), snapshot.size()) == ACORN_OK, "a snapshot of its own");
  RequireComputed(acorn_session_decode(session, nullptr, tokens[0]));
  const acorn_status back = acorn_session_rewind(session, acorn_session_position(session) / 2);
  Require(Is(back, {ACORN_OK, ACORN_ERR_REFILL}), "a rewind");  // a window may have moved past it
  RequireComputed(acorn_session_decode(session, nullptr, tokens[1]));
  acorn_session_reset(session);
  RunText(model, session, choice);
  if (plan.reference_tokens != 0) {
    acorn_selftest_report report = {};
    report.struct_size = sizeof report;
    RequireComputed(acorn_session_selftest(session, &report));
  }
}

void RunFile(const ExactBytes &image, uint64_t choice) {
  static const std::vector<uint32_t> levels = test::FeatureLevels();
  const ImagePort port(image, levels[choice % levels.size()]);
  const acorn_image whole = {image.data(), image.size()};
  acorn_options options = {};
  options.struct_size = sizeof options;
  options.context_tokens = (choice >> 22) % 4 == 0 ? 0 : kContext;  // 0: where caches have windows, no end
  options.chunk_tokens = 2 + choice % 4;
  options.flags = (static_cast<uint32_t>(choice >> 8) & (ACORN_OPEN_CHECK_WEIGHTS | ACORN_OPEN_PROFILE)) | ACORN_OPEN_TRACE;
  if ((choice >> 16) % 4 == 0) options.expert_cache_bytes = 1 << 20;
  options.expert_policy = (choice >> 18) % 3;
  options.expert_prefetch = (choice >> 20) % 3;
  acorn_memory_plan plan = {};
  plan.struct_size = sizeof plan;
  acorn_fault fault = {};
  fault.struct_size = sizeof fault;
  const acorn_status status = acorn_plan(&plan, &fault, &whole, &options, &port.port);
  Require(fault.status == status && (status == ACORN_OK || fault.section != nullptr || status < 0x20), "the fault of a refused file");
  if (status == ACORN_OK && plan.block_bytes > kMostBlockBytes) return;
  for (uint32_t i = 0; status == ACORN_OK && i < plan.rates; ++i) {
    acorn_rate_plan row = {};
    row.struct_size = sizeof row;
    Require(acorn_plan_rate(&row, nullptr, &whole, &options, &port.port, i) == ACORN_OK, "the plan of a rate");
    Require(row.left_out_bytes <= row.prunable_bytes && row.prunable_bytes <= row.weight_bytes + row.left_out_bytes, "bytes of a rate");
  }
  const ExactBytes block(status == ACORN_OK ? plan.block_bytes : 4096, 64);
  acorn_model *model = nullptr;
  const acorn_status opened = acorn_model_open(&model, &fault, &whole, &options, &port.port, block.data(), block.size());
  Require(opened == status, "what acorn_plan lets pass opens, and nothing else does");
  if (opened != ACORN_OK) return;
  acorn_model_info info = {};
  info.struct_size = sizeof info;
  Require(acorn_model_get_info(model, &info) == ACORN_OK, "a model's facts");
  RunSession(model, plan, info.vocab_size, choice);
}

}  // namespace
}  // namespace acorn::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  using namespace acorn;
  const uint64_t choice = size < kHeaderBytes ? 0 : LoadLittle64(data + kHeaderChecksum);
  const fuzz::ExactBytes image(data, size, kSegmentAlignment);
  fuzz::RunFile(image, choice);
  fuzz::Require(size == 0 || std::memcmp(image.data(), data, size) == 0, "the image as it was");
  return 0;
}
