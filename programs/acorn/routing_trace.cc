#include "routing_trace.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "error.h"
#include "output_file.h"

namespace acorn::program {
namespace {

constexpr char kMagic[] = "acorntrc";
constexpr uint32_t kVersion = 1;
constexpr uint32_t kFlagGuesses = 1;
constexpr size_t kHeaderBytes = 72;  // the bytes of the experts follow

void Put(std::string *out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) *out += static_cast<char>(value >> 8 * i & 255);
}

/// Little-endian numbers out of a file, with the offset for messages.
class TraceFile {
 public:
  explicit TraceFile(const std::string &path) : path_(path), file_(std::fopen(path.c_str(), "rb")) {
    if (file_ == nullptr) Fail(ExitCode::kIo, "%s: %s", path.c_str(), std::strerror(errno));
  }
  ~TraceFile() { std::fclose(file_); }
  TraceFile(const TraceFile &) = delete;
  TraceFile &operator=(const TraceFile &) = delete;

  /// Makes `bytes` of the file the current piece.  False: the file ends here
  bool Next(uint64_t bytes) {
    start_ += piece_.size();
    at_ = 0;
    // Grown as bytes come: a length in a damaged file must not ask for memory that the file cannot fill.
    constexpr uint64_t kStep = uint64_t{1} << 20;
    piece_.clear();
    while (piece_.size() < bytes) {
      const size_t have = piece_.size();
      piece_.resize(have + static_cast<size_t>(std::min<uint64_t>(kStep, bytes - have)));
      const size_t count = std::fread(&piece_[have], 1, piece_.size() - have, file_);
      if (have + count == piece_.size()) continue;
      if (std::ferror(file_) != 0) Fail(ExitCode::kIo, "%s: %s", path_.c_str(), std::strerror(errno));
      piece_.resize(have + count);
      if (piece_.empty()) return false;
      Refuse(start_ + piece_.size(), "the file ends in the middle of what begins at offset " + std::to_string(start_));
    }
    return true;
  }
  uint64_t Take(int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= static_cast<uint64_t>(static_cast<unsigned char>(piece_[at_++])) << 8 * i;
    return value;
  }
  uint16_t Take16() { return static_cast<uint16_t>(Take(2)); }
  uint32_t Take32() { return static_cast<uint32_t>(Take(4)); }
  const std::string &piece() const { return piece_; }

  /// Refuses what ends where the last number ended, `bytes` before.
  [[noreturn]] void RefuseLast(int bytes, const std::string &why) const { Refuse(start_ + at_ - static_cast<size_t>(bytes), why); }
  [[noreturn]] void Refuse(uint64_t offset, const std::string &why) const {
    Fail(ExitCode::kModel, "%s: not a trace that can be replayed: %s (offset %llu)", path_.c_str(), why.c_str(),
         static_cast<unsigned long long>(offset));
  }

 private:
  const std::string path_;
  std::FILE *file_;
  std::string piece_;
  uint64_t start_ = 0;  // of the piece in the file
  size_t at_ = 0;
};

uint32_t TakeCount(TraceFile *file, const char *name, uint64_t most) {
  const uint32_t value = file->Take32();
  if (value == 0 || value > most) {
    file->RefuseLast(4, std::string(name) + " " + std::to_string(value) + ", 1 to " + std::to_string(most) + " is legal");
  }
  return value;
}

uint64_t TakeNs(TraceFile *file, const char *name) {
  const uint64_t value = file->Take(8);
  if (value > kMaxTraceNs) file->RefuseLast(8, std::string(name) + " above " + std::to_string(kMaxTraceNs));
  return value;
}

TraceFacts ReadFacts(TraceFile *file) {
  if (!file->Next(sizeof kMagic - 1) || file->piece() != kMagic) file->Refuse(0, "it does not begin with \"acorntrc\"");
  if (!file->Next(kHeaderBytes - (sizeof kMagic - 1))) file->Refuse(sizeof kMagic - 1, "the header is missing");
  const uint32_t version = file->Take32();
  if (version != kVersion) {
    file->RefuseLast(4, "version " + std::to_string(version) + ", this program reads version " + std::to_string(kVersion));
  }
  const uint32_t flags = file->Take32();
  if ((flags & ~kFlagGuesses) != 0) file->RefuseLast(4, "unknown flags");
  TraceFacts facts;
  facts.guesses = (flags & kFlagGuesses) != 0;
  facts.layers = TakeCount(file, "layers", kMaxTraceExperts);
  facts.experts = TakeCount(file, "experts", std::min<uint64_t>(kNoExpert - 1, kMaxTraceExperts / facts.layers));
  facts.top_k = TakeCount(file, "experts of a token", facts.experts);
  facts.check_ns = file->Take32();
  facts.layer_ns = TakeNs(file, "time of a layer");
  facts.layer_more_ns = TakeNs(file, "time of a layer");
  facts.expert_ns = TakeNs(file, "time of an expert");
  facts.expert_more_ns = TakeNs(file, "time of an expert");
  facts.head_ns = TakeNs(file, "time of the head");
  const size_t all = size_t{facts.layers} * facts.experts;
  if (!file->Next(4 * all)) file->Refuse(kHeaderBytes, "the bytes of the experts are missing");
  for (size_t i = 0; i < all; ++i) facts.expert_bytes.push_back(TakeCount(file, "bytes of an expert", UINT32_MAX));
  return facts;
}

uint16_t TakeExpert(TraceFile *file, const TraceFacts &facts) {
  const uint16_t expert = file->Take16();
  if (expert >= facts.experts && expert != kNoExpert) {
    file->RefuseLast(2, "expert " + std::to_string(expert) + " of " + std::to_string(facts.experts));
  }
  return expert;
}

bool ReadChunk(TraceFile *file, const TraceFacts &facts, RoutingChunk *chunk) {
  if (!file->Next(4)) return false;
  chunk->tokens = TakeCount(file, "tokens of a chunk", kMaxTraceTokens);
  const uint64_t rows = uint64_t{facts.layers} * chunk->tokens, all = rows * facts.top_k;
  if (!file->Next(all * (facts.guesses ? 6 : 4))) file->RefuseLast(0, "a chunk has no choices");
  for (uint64_t row = 0; row < rows; ++row) {
    const size_t first = chunk->choices.size();
    for (uint32_t k = 0; k < facts.top_k; ++k) {
      const uint16_t expert = TakeExpert(file, facts);
      for (size_t i = first; i < chunk->choices.size() && expert != kNoExpert; ++i) {
        if (chunk->choices[i].expert == expert) file->RefuseLast(2, "expert " + std::to_string(expert) + " twice for one token");
      }
      const uint16_t weight = file->Take16();
      if (weight > 32768) file->RefuseLast(2, "weight " + std::to_string(weight) + " above 32768");
      chunk->choices.push_back({expert, weight});
    }
  }
  for (uint64_t i = 0; facts.guesses && i < all; ++i) chunk->guesses.push_back(TakeExpert(file, facts));
  return true;
}

}  // namespace

uint32_t TraceFacts::SlotBytes() const { return *std::max_element(expert_bytes.begin(), expert_bytes.end()); }

uint64_t RoutingTrace::Tokens() const {
  uint64_t tokens = 0;
  for (const RoutingChunk &chunk : chunks) tokens += chunk.tokens;
  return tokens;
}

RoutingTraceWriter::RoutingTraceWriter(const std::string &path, const TraceFacts &facts)
    : path_(path), facts_(facts), file_(std::fopen(path.c_str(), "wb")) {
  if (file_ == nullptr) Fail(ExitCode::kIo, "%s: %s", path.c_str(), std::strerror(errno));
  bytes_ = kMagic;
  for (const uint32_t value : {kVersion, facts.guesses ? kFlagGuesses : 0, facts.layers, facts.experts, facts.top_k, facts.check_ns}) {
    Put(&bytes_, value, 4);
  }
  for (const uint64_t ns : {facts.layer_ns, facts.layer_more_ns, facts.expert_ns, facts.expert_more_ns, facts.head_ns}) {
    Put(&bytes_, ns, 8);
  }
  for (const uint32_t bytes : facts.expert_bytes) Put(&bytes_, bytes, 4);
}

RoutingTraceWriter::~RoutingTraceWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  RemoveFile(path_);
}

void RoutingTraceWriter::Write() {
  if (std::fwrite(bytes_.data(), 1, bytes_.size(), file_) != bytes_.size()) {
    Fail(ExitCode::kIo, "%s: cannot be written: %s", path_.c_str(), std::strerror(errno));
  }
  bytes_.clear();
}

void RoutingTraceWriter::Append(const RoutingChunk &chunk) {
  Put(&bytes_, chunk.tokens, 4);
  for (const RoutingChoice &choice : chunk.choices) {
    Put(&bytes_, choice.expert, 2);
    Put(&bytes_, choice.weight_q15, 2);
  }
  for (const uint16_t guess : chunk.guesses) Put(&bytes_, guess, 2);
  Write();
}

void RoutingTraceWriter::Finish() {
  Write();
  const int error = std::fclose(file_) == 0 ? 0 : errno;
  file_ = nullptr;
  if (error == 0) return;
  RemoveFile(path_);
  Fail(ExitCode::kIo, "%s: cannot be written: %s", path_.c_str(), std::strerror(error));
}

RoutingTrace ReadRoutingTrace(const std::string &path) {
  TraceFile file(path);
  RoutingTrace trace;
  trace.facts = ReadFacts(&file);
  for (RoutingChunk chunk; ReadChunk(&file, trace.facts, &chunk); chunk = {}) trace.chunks.push_back(std::move(chunk));
  if (trace.chunks.empty()) file.RefuseLast(0, "it has no tokens");
  return trace;
}

}  // namespace acorn::program
