// Listens to the routers of a session and makes a routing trace of what they say, with the time that computing takes.
#pragma once

#include <cstdint>
#include <vector>

#include "device.h"
#include "routing_trace.h"

namespace acorn::program {

/// Share of the choices that repeat one of the token before in the same layer, and that go to the most popular quarter of a
/// layer's experts.
struct RoutingLocality {
  double repeated = 0;
  double repeated_by_chance = 0;  // had every token chosen anew and evenly
  double popular_quarter = 0;
};
RoutingLocality LocalityOf(const RoutingTrace &trace);

/// FNV-1a-64 over the int32 values layer, token, expert of each choice, token by token from 0 on, each layer by layer, the router's
/// best first: the same for any chunks, threads and cache.
uint64_t DigestOf(const RoutingTrace &trace);

/// Single tokens, the first layer apart, for which nothing is guessed. Of their choices the share that was guessed, and of the guesses
/// the share that came true.
struct Foresight {
  double of_choices = 0, of_guesses = 0;
};
Foresight ForesightOf(const RoutingTrace &trace);

class RoutingRecorder {
 public:
  /// device: opened with ACORN_OPEN_PROFILE; its session reports to this object until it is gone, with --prefetch gate the gate's
  /// guesses too.
  /// Throws Failure where the model has no experts, or layers that differ in how many.
  explicit RoutingRecorder(Device *device);
  ~RoutingRecorder();
  RoutingRecorder(const RoutingRecorder &) = delete;
  RoutingRecorder &operator=(const RoutingRecorder &) = delete;

  /// What was recorded so far, with the facts of the model and the times. All chunks are whole: call it between two calls of the
  /// session.
  RoutingTrace Finish();

 private:
  /// The clocks when a chunk came to the first layer with experts, and when it came to the last one.
  struct Moment {
    uint64_t first_ns, last_ns;
    uint64_t expert_ns, stall_ns;  // sums since open, at the first
  };

  static void OnRoutes(void *ctx, uint32_t layer, const acorn_route *routes, size_t tokens, size_t top_k);
  static void OnGuess(void *ctx, uint32_t layer, const acorn_route *routes, size_t tokens, size_t count);
  Moment Now() const;
  void ReadFacts();
  void MeasureTimes();

  Device *device_;
  RoutingTrace trace_;
  std::vector<Moment> moments_;  // [chunks], and the end
};

}  // namespace acorn::program
