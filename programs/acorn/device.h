// A model on this machine: file, port, plan, block, model and one session, with the options that every subcommand has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "acorn.h"
#include "acorn_posix.h"
#include "arguments.h"
#include "trust.h"

namespace acorn::program {

constexpr uint64_t kNoRate = UINT64_MAX;

struct DeviceOptions {
  std::string file;
  uint64_t context = 0, threads = 0, chunk = 0;  // 0: default
  bool pin = false, large_pages = false;
  uint64_t rate = kNoRate;                       // percent; kNoRate: 0, or that of a conversation that is loaded
  uint64_t memory = 0;                           // 0: no limit
  uint64_t expert_cache = 0;                     // bytes; 0: experts are used where they lie in the file
  std::string expert_policy = "lfru";
  std::string prefetch = "off";
  uint32_t drop_experts_q16 = 0, cache_routing_q16 = 0;  // 0: off
  std::string residency = "map", isa;
  std::string trust;  // file with a public key; empty: any file is used
};

/// The options that are common to all subcommands, reserved ones too.
void AddDeviceOptions(Arguments *arguments, DeviceOptions *options);

/// What a subcommand wants of the library beyond the common options.
struct DeviceNeeds {
  uint32_t flags = 0;       // ACORN_OPEN_…
  uint32_t logit_rows = 0;  // 0: default
  uint64_t tokens = 0;      // that a session holds at least, where --context does not say; 0: whatever the model does
};

class Device {
 public:
  /// Maps the file and computes the plan; opens nothing.  Throws Failure.
  Device(const DeviceOptions &options, const DeviceNeeds &needs = {});
  ~Device();
  Device(const Device &) = delete;
  Device &operator=(const Device &) = delete;

  /// Throws Failure where the plan needs more than --memory gives.
  void CheckMemory() const;

  /// Takes the block, opens the model and a session in it.  Throws Failure.
  void Open();

  /// Throws the Failure for a status of a call with the model or the session, naming the file where that is at fault, and the expert
  /// where one could not be used. ACORN_OK returns.
  void Check(acorn_status status, const char *what) const;

  /// Of the session, which feeds its conversation again where a lower rate asks for that.  False: stopped meanwhile; the session is
  /// then where it came to.  Throws Failure, also for a rate that the file does not hold.
  bool SetRate(uint32_t rate);

  /// Ids of a text; flags ACORN_TEXT_….  Throws Failure, also where the file has no tokenizer.
  std::vector<int32_t> Encode(const std::string &text, uint32_t flags);
  /// Fails where the file has no tokenizer (or, with ACORN_TEXT_CHAT, no chat template).
  void RequireText(uint32_t flags) const;

  const acorn_memory_plan &plan() const { return plan_; }
  /// A row for each rate that the file holds.
  std::vector<acorn_rate_plan> RatePlans() const;
  const acorn_model_info &info() const { return info_; }
  acorn_model *model() const { return model_; }
  acorn_session *session() const { return session_; }
  const DeviceOptions &options() const { return options_; }
  const std::string &path() const { return options_.file; }
  /// Name of the highest instruction set in use, as --isa takes it.
  const char *isa() const;
  /// Names of the instruction sets below that one that this machine has too, best first, scalar last.
  std::vector<const char *> LowerIsas() const;
  /// From the start of the constructor to the end of Open, in milliseconds.
  double open_ms() const { return open_ms_; }

 private:
  void SetIsa(acorn_options *options);
  std::vector<acorn_rate_plan> PlanRates(uint32_t context) const;
  [[noreturn]] void FailRate(uint32_t rate) const;
  void SetExperts();
  void OpenImage();
  void ForPieces(const TakePiece &take) const;

  DeviceOptions options_;
  acorn_posix *posix_ = nullptr;
  acorn_posix_file file_ = {};
  acorn_port port_ = {};
  acorn_image image_ = {};
  acorn_options library_options_ = {};
  acorn_memory_plan plan_ = {};
  void *block_ = nullptr;
  acorn_model *model_ = nullptr;
  acorn_session *session_ = nullptr;
  acorn_model_info info_ = {};
  uint32_t features_ = 0;
  bool streams_ = false;
  uint64_t begin_ticks_ = 0;
  double open_ms_ = 0;
};

}  // namespace acorn::program
