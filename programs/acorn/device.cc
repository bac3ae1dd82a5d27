#include "device.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <memory>

#include "error.h"
#include "mapped_fault.h"
#include "trust.h"

namespace acorn::program {
namespace {

constexpr uint64_t kMaxThreads = 256;

/// An instruction set by name: what it needs of the CPU, and what may be used with it.
struct Isa {
  const char *name;
  uint32_t needs, allows;
};

// Best last.
constexpr Isa kIsas[] = {
    {"scalar", 0, 0},
    {"neon", ACORN_CPU_NEON, ACORN_CPU_NEON},
    {"neondot", ACORN_CPU_NEONDOT, ACORN_CPU_NEON | ACORN_CPU_NEONDOT},
    {"i8mm", ACORN_CPU_I8MM, ACORN_CPU_NEON | ACORN_CPU_NEONDOT | ACORN_CPU_I8MM},
    {"avx2", ACORN_CPU_AVX2, ACORN_CPU_AVX2},
    {"avxvnni", ACORN_CPU_AVXVNNI, ACORN_CPU_AVX2 | ACORN_CPU_AVXVNNI},
    {"avx512vnni", ACORN_CPU_AVX512VNNI, ACORN_CPU_AVX2 | ACORN_CPU_AVXVNNI | ACORN_CPU_AVX512VNNI | ACORN_CPU_GFNI},
};

// Errors come back as a status and are told once, by the program itself.
void LogWarning(void *, uint32_t level, const char *message, size_t bytes) {
  if (level == 1) std::fprintf(stderr, "acorn: warning: %.*s\n", static_cast<int>(bytes), message);
}

void TellNoExperts(const std::string &file) {
  static bool told = false;  // once, however often a subcommand opens the file
  if (!told) std::fprintf(stderr, "acorn: warning: %s has no experts: --expert-cache is without effect\n", file.c_str());
  told = true;
}

}  // namespace

void AddDeviceOptions(Arguments *arguments, DeviceOptions *options) {
  arguments->Positional("FILE", &options->file);
  arguments->Number("--context", 1, kLongestContext, &options->context, "tokens that a conversation can hold (default: the model's)");
  arguments->Number("--threads", 1, kMaxThreads, &options->threads, "threads (default: the CPUs of this process, at most 16)");
  arguments->Flag("--pin", &options->pin, "each thread on a CPU of its own, the fastest ones; loops shared out by their measured speed");
  arguments->Number("--chunk", 1, 1024, &options->chunk, "prompt tokens computed together (default 128)");
  arguments->Bytes("--memory", &options->memory, "refuse (exit code 4) where the plan needs more");
  arguments->Text("--residency", &options->residency,
                  "map: read the file in place (default); populate: the same, all of it at once; copy: read it into memory");
  arguments->Flag("--large-pages", &options->large_pages,
                  "the library's memory in large pages: long prompts and conversations are a little faster, and all of it is "
                  "resident at once");
  arguments->Text("--isa", &options->isa, "lower the instruction set: scalar, neon, neondot, i8mm, avx2, avxvnni, avx512vnni");
  arguments->Bytes("--expert-cache", &options->expert_cache, "memory for experts that stream from the file; without it all of them are used where they lie");
  arguments->Text("--expert-policy", &options->expert_policy, "which expert leaves first: lfru (default), lru, edgemoe");
  arguments->Text("--prefetch", &options->prefetch, "off (default); read what the next layer's router seems to want: gate; or what has followed so far: path");
  arguments->Decimal("--drop-experts", 1, &options->drop_experts_q16, "leave out experts that have together at most this share of a token's weights: another answer");
  arguments->Decimal("--cache-aware-routing", 1, &options->cache_routing_q16, "prefer experts in memory by this share of a token's range of logits: another answer");
  arguments->Number("--rate", 0, 99, &options->rate, "percent of its prunable weights that the model leaves out, one of those that the file holds (default 0)");
  AddTrustOption(arguments, &options->trust);
}

Device::Device(const DeviceOptions &options, const DeviceNeeds &needs) : options_(options) {
  if (options_.residency != "map" && options_.residency != "populate" && options_.residency != "copy") {
    Fail(ExitCode::kUsage, "--residency %s: map, populate or copy is wanted", options_.residency.c_str());
  }
  posix_ = acorn_posix_create(static_cast<uint32_t>(options_.threads));
  if (posix_ == nullptr) Fail(ExitCode::kMemory, "no threads to be had");
  const int pinned = options_.pin ? acorn_posix_pin(posix_) : 0;
  if (pinned == EINVAL) Fail(ExitCode::kUsage, "--pin: more threads than the %u CPUs of this process", acorn_posix_cpus());
  if (pinned != 0) Fail(ExitCode::kUsage, "--pin: %s", std::strerror(pinned));
  acorn_posix_port(posix_, &port_, 1);
  port_.log = LogWarning;

  library_options_.struct_size = sizeof library_options_;
  library_options_.context_tokens = static_cast<uint32_t>(options_.context);
  library_options_.chunk_tokens = static_cast<uint32_t>(options_.chunk);
  library_options_.logit_rows = needs.logit_rows;
  library_options_.rate = options_.rate == kNoRate ? 0 : static_cast<uint32_t>(options_.rate);
  library_options_.flags = needs.flags;
  SetIsa(&library_options_);

  SetExperts();
  begin_ticks_ = acorn_posix_ticks();
  OpenImage();
  static const uint64_t kNothing alignas(64) = 0;  // an empty file is no model, which is for the library to say
  image_ = {file_.bytes == 0 ? &kNothing : file_.data, file_.bytes};

  acorn_fault fault = {};
  fault.struct_size = sizeof fault;
  plan_.struct_size = sizeof plan_;
  acorn_status status = acorn_plan(&plan_, &fault, &image_, &library_options_, &port_);
  if (status == ACORN_OK && options_.context == 0 && needs.tokens != 0 && plan_.endless == 0) {
    options_.context = needs.tokens;
    library_options_.context_tokens = static_cast<uint32_t>(needs.tokens);
    status = acorn_plan(&plan_, &fault, &image_, &library_options_, &port_);
  }
  if (status == ACORN_ERR_RATE) FailRate(library_options_.rate);
  if (status == ACORN_ERR_MEMORY) {
    Fail(ExitCode::kMemory, "--expert-cache %llu: one expert of %s has %llu bytes",
         static_cast<unsigned long long>(options_.expert_cache), options_.file.c_str(), static_cast<unsigned long long>(fault.offset));
  }
  if (status == ACORN_ERR_ARGUMENT && options_.context != 0) {
    // The only option that depends on the model.
    library_options_.context_tokens = 0;
    if (acorn_plan(&plan_, nullptr, &image_, &library_options_, &port_) == ACORN_OK) {
      Fail(ExitCode::kUsage, "a context of %llu tokens: this model holds at most %u",
           static_cast<unsigned long long>(options_.context), plan_.context_tokens);
    }
  }
  if (status != ACORN_OK) {
    fault.status = status;
    FailModel(options_.file.c_str(), fault);
  }
  if (options_.expert_cache != 0 && plan_.experts == 0) TellNoExperts(options_.file);
}

// context: 0: the model's
std::vector<acorn_rate_plan> Device::PlanRates(uint32_t context) const {
  acorn_options options = library_options_;
  options.rate = 0;  // which every file holds
  options.context_tokens = context;
  acorn_memory_plan plan = {};
  Check(acorn_plan(&plan, nullptr, &image_, &options, &port_), "planning");
  std::vector<acorn_rate_plan> rows(plan.rates);
  for (size_t i = 0; i < rows.size(); ++i) {
    Check(acorn_plan_rate(&rows[i], nullptr, &image_, &options, &port_, i), "planning a rate");
  }
  return rows;
}

std::vector<acorn_rate_plan> Device::RatePlans() const { return PlanRates(library_options_.context_tokens); }

void Device::FailRate(uint32_t rate) const {
  std::string held;
  const std::vector<acorn_rate_plan> rows = PlanRates(0);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i != 0) held += i + 1 == rows.size() ? " and " : ", ";
    held += std::to_string(rows[i].rate);
  }
  Fail(ExitCode::kUsage, "a rate of %u: %s holds %s%s", rate, options_.file.c_str(), held.c_str(),
       rows.size() == 1 ? " alone" : "");
}

bool Device::SetRate(uint32_t rate) {
  acorn_status status = acorn_session_set_rate(session_, rate);
  if (status == ACORN_ERR_RATE) FailRate(rate);
  if (status == ACORN_ERR_REFILL) {
    // Of a conversation without an end those that there still are, which a window ends before.
    const int32_t *begin = acorn_session_tokens(session_);
    const std::vector<int32_t> tokens(begin, begin + std::min<uint64_t>(acorn_session_position(session_), plan_.context_tokens));
    acorn_session_reset(session_);
    status = acorn_session_set_rate(session_, rate);
    if (status == ACORN_OK) status = acorn_session_prefill(session_, tokens.data(), tokens.size());
    if (status == ACORN_ERR_CANCELLED) return false;
  }
  Check(status, "changing the rate");
  return true;
}

void Device::SetExperts() {
  library_options_.expert_cache_bytes = options_.expert_cache;
  library_options_.expert_policy = ChoiceOf("--expert-policy", options_.expert_policy, {"lfru", "lru", "edgemoe"});  // ACORN_EXPERTS_…
  library_options_.expert_prefetch = ChoiceOf("--prefetch", options_.prefetch, {"off", "gate", "path"});             // ACORN_PREFETCH_…
  library_options_.drop_experts_q16 = options_.drop_experts_q16;
  library_options_.cache_routing_q16 = options_.cache_routing_q16;
}

// The file, or where experts stream what stands before them, and the port's reads of the rest.
void Device::OpenImage() {
  const char *path = options_.file.c_str();
  const uint32_t residency = options_.residency == "copy"       ? ACORN_POSIX_COPY
                             : options_.residency == "populate" ? ACORN_POSIX_MAP_POPULATED
                                                                : ACORN_POSIX_MAP;
  const auto check = [path](int error) {
    if (error == ENOMEM) Fail(ExitCode::kMemory, "%s: no memory for the file", path);
    if (error != 0) Fail(ExitCode::kIo, "%s: %s", path, std::strerror(error));
  };
  uint64_t bytes = UINT64_MAX;
  if (options_.expert_cache != 0) {
    acorn_posix_file start = {};
    check(acorn_posix_open_part(&start, path, ACORN_POSIX_COPY, ACORN_HEADER_BYTES));
    // What is wrong with a header is for acorn_plan to say, of the whole file.
    streams_ = start.bytes != 0 && acorn_image_resident(&bytes, start.data, start.bytes) == ACORN_OK;
    acorn_posix_close_file(&start);
    if (streams_) {
      check(acorn_posix_set_file(posix_, path));
      acorn_posix_port(posix_, &port_, 1);
      port_.log = LogWarning;
    }
  }
  check(acorn_posix_open_part(&file_, path, residency, bytes));
  if (residency != ACORN_POSIX_COPY) WatchMapping(file_, options_.file);
  if (!options_.trust.empty()) CheckSignature(options_.file, options_.trust, [this](const TakePiece &take) { ForPieces(take); });
}

// What will be used: the memory that the file lies in, and where experts stream the rest by the port's own reads.
void Device::ForPieces(const TakePiece &take) const {
  take(static_cast<const uint8_t *>(file_.data), file_.bytes);
  if (!streams_) return;
  acorn_image none;
  uint64_t file_bytes = 0;
  const acorn_status asked = acorn_image_read(&none, &file_bytes, &port_, nullptr, 0);  // for the size
  if (asked != ACORN_ERR_MEMORY) Fail(ExitCode::kIo, "%s: %s", options_.file.c_str(), acorn_status_text(asked));
  struct stat facts = {};
  if (stat(options_.file.c_str(), &facts) != 0) Fail(ExitCode::kIo, "%s: %s", options_.file.c_str(), std::strerror(errno));
  if (static_cast<uint64_t>(facts.st_size) != file_bytes) {
    Fail(ExitCode::kModel, "%s: has %llu bytes, its header says %llu", options_.file.c_str(),
         static_cast<unsigned long long>(facts.st_size), static_cast<unsigned long long>(file_bytes));
  }
  std::vector<uint8_t> piece(1 << 20);
  for (uint64_t done = file_.bytes; done < file_bytes; done += piece.size()) {
    piece.resize(std::min<uint64_t>(piece.size(), file_bytes - done));
    if (port_.read(port_.ctx, piece.data(), done, piece.size()) != 0) {
      Fail(ExitCode::kIo, "%s: cannot be read at %llu", options_.file.c_str(), static_cast<unsigned long long>(done));
    }
    take(piece.data(), piece.size());
  }
}

Device::~Device() {
  if (session_ != nullptr) acorn_session_close(session_);
  acorn_posix_stop_reads(posix_, UINT64_MAX);  // into the block
  acorn_posix_release(block_, plan_.block_bytes);
  acorn_posix_close_file(&file_);
  acorn_posix_destroy(posix_);
}

void Device::SetIsa(acorn_options *options) {
  features_ = port_.cpu_features;
  if (options_.isa.empty()) return;
  for (const Isa &isa : kIsas) {
    if (options_.isa != isa.name) continue;
    if ((isa.needs & ~port_.cpu_features) != 0) Fail(ExitCode::kUsage, "--isa %s: this CPU does not have it", isa.name);
    features_ &= isa.allows;
    options->cpu_features = isa.allows;
    if (isa.allows == 0) options->flags |= ACORN_OPEN_SCALAR;
    return;
  }
  Fail(ExitCode::kUsage, "--isa %s: scalar, neon, neondot, i8mm, avx2, avxvnni or avx512vnni is wanted", options_.isa.c_str());
}

const char *Device::isa() const {
  const char *name = kIsas[0].name;
  for (const Isa &isa : kIsas) {
    if (isa.needs != 0 && (isa.needs & ~features_) == 0) name = isa.name;
  }
  return name;
}

std::vector<const char *> Device::LowerIsas() const {
  std::vector<const char *> names;
  for (size_t i = std::size(kIsas); i-- > 0;) {
    if ((kIsas[i].needs & ~features_) == 0 && std::strcmp(kIsas[i].name, isa()) != 0) names.push_back(kIsas[i].name);
  }
  return names;
}

void Device::CheckMemory() const {
  const uint64_t needed = plan_.block_bytes + (options_.residency == "copy" ? plan_.image_bytes : 0);
  if (options_.memory != 0 && needed > options_.memory) {
    Fail(ExitCode::kMemory, "%s needs %llu bytes, --memory gives %llu (a smaller --context or --chunk needs less)",
         options_.file.c_str(), static_cast<unsigned long long>(needed), static_cast<unsigned long long>(options_.memory));
  }
}

void Device::Open() {
  CheckMemory();
  const bool large_pages = options_.large_pages || plan_.expert_slots != 0;
  block_ = large_pages ? acorn_posix_allocate_for_reads(plan_.block_bytes) : acorn_posix_allocate(plan_.block_bytes);
  if (block_ == nullptr) {
    Fail(ExitCode::kMemory, "no memory for the %llu bytes of the plan", static_cast<unsigned long long>(plan_.block_bytes));
  }
  acorn_fault fault = {};
  fault.struct_size = sizeof fault;
  const acorn_status status = acorn_model_open(&model_, &fault, &image_, &library_options_, &port_, block_, plan_.block_bytes);
  if (status != ACORN_OK) {
    fault.status = status;
    FailModel(options_.file.c_str(), fault);
  }
  Check(acorn_session_open(&session_, model_), "opening a session");
  open_ms_ = static_cast<double>(acorn_posix_ticks() - begin_ticks_) / 1e6;
  info_.struct_size = sizeof info_;
  Check(acorn_model_get_info(model_, &info_), "reading the model's facts");
}

void Device::Check(acorn_status status, const char *what) const {
  const uint32_t group = status >> 4;
  if (group != 2 && group != 4) return program::Check(status, what);
  acorn_expert_fault fault = {};
  fault.struct_size = sizeof fault;
  const char *path = options_.file.c_str(), *text = acorn_status_text(status);
  if (model_ == nullptr || acorn_model_expert_fault(model_, &fault) != ACORN_OK || fault.status != status) {
    Fail(CodeOf(status), "%s: %s: %s", path, what, text);
  }
  Fail(CodeOf(status), "%s: %s: %s (expert %u of layer %u, offset %llu)", path, what, text, fault.expert, fault.layer,
       static_cast<unsigned long long>(fault.offset));
}

void Device::RequireText(uint32_t flags) const {
  if (info_.has_tokenizer == 0) Fail(ExitCode::kModel, "%s has no tokenizer", options_.file.c_str());
  if ((flags & ACORN_TEXT_CHAT) != 0 && info_.has_chat_template == 0) {
    Fail(ExitCode::kModel, "%s has no chat template", options_.file.c_str());
  }
}

std::vector<int32_t> Device::Encode(const std::string &text, uint32_t flags) {
  RequireText(flags);
  // A token is a byte at least, a template a few tokens. Left uninitialised: what is not used takes no memory.
  size_t capacity = text.size() + 256, count = 0;
  std::unique_ptr<int32_t[]> ids(new int32_t[capacity]);
  acorn_status status = acorn_tokenize(model_, ids.get(), capacity, &count, text.data(), text.size(), flags);
  if (status == ACORN_ERR_BUFFER && count > capacity) {
    capacity = count;
    ids.reset(new int32_t[capacity]);
    status = acorn_tokenize(model_, ids.get(), capacity, &count, text.data(), text.size(), flags);
  }
  Check(status, "tokenizing");
  return std::vector<int32_t>(ids.get(), ids.get() + count);
}

}  // namespace acorn::program
