// The fixed pieces of work whose instructions instructions.sh counts: one thread, AVX2 wherever it runs, nothing of the machine
// in the answer. Only Work() is counted; models are made or read before it.
//   acorn_bench_instructions WORKLOAD MODELS     MODELS: the folder of home.acorn and moe.acorn (examples/models)
//   acorn_bench_instructions --list | --compiler
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "acorn.h"
#include "tests/support/model_session.h"

namespace acorn {
namespace {

constexpr uint32_t kVectorBits = ACORN_CPU_AVX2;  // all that valgrind knows of

#define ACORN_BENCH_TEXT(word) #word
#define ACORN_BENCH_NUMBER(word) ACORN_BENCH_TEXT(word)
#if defined(__clang__)
constexpr char kCompiler[] = "clang " ACORN_BENCH_NUMBER(__clang_major__);
#else
constexpr char kCompiler[] = "gcc " ACORN_BENCH_NUMBER(__GNUC__);
#endif

void Check(acorn_status status, const char *what) {
  if (status == ACORN_OK) return;
  std::fprintf(stderr, "acorn_bench_instructions: %s: %s\n", what, acorn_status_text(status));
  std::exit(1);
}

struct Workload {
  const char *name;
  const char *model;  // a file of MODELS; null: SmallStateSpace(), SmallElastic()
  uint32_t rate;      // percent
  void (*run)(acorn_session *session, uint32_t vocab_size);
};

std::vector<int32_t> Tokens(size_t count, uint32_t vocab_size) {
  std::vector<int32_t> tokens(count);
  for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(i * 2654435761u % vocab_size);
  return tokens;
}

void Prefill(acorn_session *session, uint32_t vocab_size) {
  const std::vector<int32_t> tokens = Tokens(64, vocab_size);
  Check(acorn_session_prefill(session, tokens.data(), tokens.size()), "prefill");
}

void Decode(acorn_session *session, uint32_t vocab_size) {
  for (const int32_t token : Tokens(16, vocab_size)) Check(acorn_session_decode(session, nullptr, token), "decode");
}

// Both, so that the recurrence and its convolution are counted by the chunk and by the token.
void PrefillAndDecode(acorn_session *session, uint32_t vocab_size) {
  Prefill(session, vocab_size);
  Decode(session, vocab_size);
}

// Text in, text out, with every part of the sampler.
void Talk(acorn_session *session, uint32_t) {
  const std::string text =
      "Please turn on the lamp in the kitchen, dim the one in the hall to 35 % \xE2\x80\x94 and tell me a story.";
  Check(acorn_session_append_text(session, text.data(), text.size(), ACORN_TEXT_CHAT | ACORN_TEXT_BOS), "reading a text");
  acorn_generation generation = {};
  generation.struct_size = sizeof generation;
  generation.max_tokens = 8;
  generation.sampling.struct_size = sizeof generation.sampling;
  generation.sampling.temperature_q16 = 52429;  // 0.8
  generation.sampling.top_k = 40;
  generation.sampling.top_p_q16 = 62259;              // 0.95
  generation.sampling.repetition_penalty_q16 = 72090;  // 1.1
  generation.sampling.seed = 7;
  Check(acorn_session_generate(session, nullptr, nullptr, &generation), "answering");
}

constexpr Workload kWorkloads[] = {
    {"dense_prefill", "home.acorn", 0, Prefill},
    {"mixture_decode", "moe.acorn", 0, Decode},
    {"state_space", nullptr, 0, PrefillAndDecode},
    {"pruned_decode", nullptr, 35, Decode},
    {"talk", "home.acorn", 0, Talk},
};

test::AlignedBytes ReadModel(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<uint8_t> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (bytes.empty()) {
    std::fprintf(stderr, "acorn_bench_instructions: %s: no model\n", path.c_str());
    std::exit(5);
  }
  return test::AlignedBytes(bytes);
}

test::ModelSpec SmallSpec(const char *name) {
  test::ModelSpec spec;
  spec.name = name;
  spec.vocab_size = 1024, spec.hidden = 256, spec.layers = 4, spec.heads = 8, spec.kv_heads = 4, spec.head_dim = 32;
  spec.rotary_dims = 32, spec.ffn = 768, spec.max_context = 128;
  spec.linear = {WeightFormat::kW4G32, Layout::kC4}, spec.head = {WeightFormat::kW8, Layout::kX16C8};
  return spec;
}

test::AlignedBytes SmallStateSpace() {
  test::ModelSpec spec = SmallSpec("state_space");
  spec.mixers = {test::Mixer::kStateSpace}, spec.state_ffn = false;
  spec.state_heads = 16, spec.state_head_dim = 32, spec.state_columns = 64;
  return test::BuildModel(spec);
}

test::AlignedBytes SmallElastic() {
  test::ModelSpec spec = SmallSpec("elastic");
  spec.sorted_pairs = true, spec.attention_run = 8;
  spec.profiles = {{35, {16, 16, 480, 0, 0, 0}}};
  return test::BuildModel(spec);
}

test::AlignedBytes ModelOf(const Workload &workload, const std::string &models) {
  if (workload.model != nullptr) return ReadModel(models + "/" + workload.model);
  return workload.rate == 0 ? SmallStateSpace() : SmallElastic();
}

}  // namespace

/// What is counted: a symbol that callgrind finds, so no part of a namespace without a name.
__attribute__((noinline)) void Work(const Workload *workload, acorn_session *session, uint32_t vocab_size) {
  workload->run(session, vocab_size);
}

}  // namespace acorn

int main(int argc, char **argv) {
  using acorn::kWorkloads;
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (const acorn::Workload &workload : kWorkloads) std::printf("%s\n", workload.name);
    return 0;
  }
  if (argc == 2 && std::strcmp(argv[1], "--compiler") == 0) {
    std::printf("%s\n", acorn::kCompiler);
    return 0;
  }
  for (const acorn::Workload &workload : kWorkloads) {
    if (argc != 3 || std::strcmp(argv[1], workload.name) != 0) continue;
    acorn_port port = {};
    port.struct_size = sizeof port;
    port.cpu_features = acorn::kVectorBits;
    acorn_options options = {};
    options.rate = workload.rate;
    acorn::test::ModelSession opened(ModelOf(workload, argv[2]), options, &port);
    acorn::Check(opened.status(), "opening");
    acorn_model_info info = {};
    info.struct_size = sizeof info;
    acorn::Check(acorn_model_get_info(opened.model(), &info), "opening");
    acorn::Work(&workload, opened.session(), info.vocab_size);
    return 0;
  }
  std::fprintf(stderr, "usage: acorn_bench_instructions WORKLOAD MODELS | --list | --compiler\n");
  return 2;
}
