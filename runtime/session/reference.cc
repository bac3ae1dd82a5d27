// The reference run: what `acorn selftest` repeats and acornc records. One definition of it, Play, serves both.
#include "acorn_schema/file.h"
#include "session/session.h"
#include "session/trace.h"

namespace acorn {
namespace {

// Prompt, then the generated ids one by one, in an empty session at rate 0.
//   choose(i, token)  the sampler's choice for generated id i; gives the id to feed
//   end(phase)        the phase is over, its digests stand in the trace; returns false to stop
template <typename Choose, typename End>
Status Play(Session *session, const ReferenceRun &run, RunDigests *digests, const Choose &choose, const End &end) {
  Model *model = session->model;
  const auto add_logits = [&] {
    for (uint32_t i = 0; i < model->graph.vocab_size; ++i) digests->logits = Digest(digests->logits, session->logits[i]);
  };
  *digests = {kFnvBasis, kFnvBasis};
  ACORN_TRY(session->stop.Take());  // resetting forgets it
  ResetSession(session);
  ACORN_TRY(SetRate(session, 0));
  ResetTrace(model);
  ACORN_TRY(Feed(session, run.prompt, nullptr, nullptr));
  add_logits();
  if (!end(RunPhase::kPrefill)) return Status::kOk;
  ResetTrace(model);
  SamplerParams drawn;
  drawn.seed = run.seed;
  drawn.temperature_q16 = run.temperature_q16;
  const size_t greedy = run.generated.size() - run.sampled;
  for (size_t i = 0; i < run.generated.size(); ++i) {
    int32_t token = 0;
    ACORN_TRY(Sample(&token, Span<const int32_t>(session->logits, model->graph.vocab_size), model->graph.logit_factor, {},
                     i < greedy ? SamplerParams() : drawn, session->position, model->sampler_work));
    token = choose(i, token);
    digests->ids = Digest(digests->ids, token);
    ACORN_TRY(Feed(session, Span<const int32_t>(&token, 1), nullptr, nullptr));
    add_logits();
  }
  end(RunPhase::kDecode);
  return session->stop.Take();
}

// As Play, of the model as the file says it: dials are off and nobody looks at routes. Afterwards the session is empty and has its
// rate again.
template <typename Choose, typename End>
Status PlayAndReset(Session *session, const ReferenceRun &run, RunDigests *digests, const Choose &choose, const End &end) {
  const uint32_t rate = RateOf(*session);
  const RoutingDials dials = session->model->dials;
  const RoutingHook routing_hook = session->routing_hook, guess_hook = session->guess_hook;
  session->model->dials = {};
  session->routing_hook = session->guess_hook = {};
  const Status status = Play(session, run, digests, choose, end);
  session->model->dials = dials;
  session->routing_hook = routing_hook;
  session->guess_hook = guess_hook;
  ResetSession(session);
  ACORN_TRY(SetRate(session, rate));
  return status;
}

}  // namespace

Status RecordRun(Session *session, const ReferenceRun &run, Span<int32_t> generated, Span<uint64_t> prefill,
                 Span<uint64_t> decode) {
  const Span<uint64_t> trace = session->model->trace;
  if (trace.empty()) return Status::kState;
  RunDigests digests;
  const auto choose = [&](size_t i, int32_t token) { return generated[i] = token; };
  const auto end = [&](RunPhase phase) {
    __builtin_memcpy((phase == RunPhase::kPrefill ? prefill : decode).data(), trace.data(), trace.size() * sizeof(uint64_t));
    return true;
  };
  return PlayAndReset(session, run, &digests, choose, end);
}

Status CheckRun(Session *session, RunReport *report) {
  Model *model = session->model;
  const ReferenceRun &run = model->graph.reference;
  if (model->trace.empty() || run.prompt.empty()) return Status::kState;
  *report = {};
  // The ids of the file are fed, whatever is chosen here: so a wrong step can only touch steps behind it, and the first one
  // that differs is the one that is wrong.
  RunReport sampler = {};
  const auto choose = [&](size_t i, int32_t token) {
    if (token != run.generated[i] && sampler.phase == RunPhase::kNone) {
      sampler = {RunPhase::kSample, i, static_cast<uint64_t>(run.generated[i]), static_cast<uint64_t>(token), {}};
    }
    return run.generated[i];
  };
  const auto end = [&](RunPhase phase) {
    const Span<const uint64_t> expected = phase == RunPhase::kPrefill ? run.prefill : run.decode;
    for (size_t i = 0; i < expected.size(); ++i) {
      if (model->trace[i] == expected[i]) continue;
      *report = {phase, i, expected[i], model->trace[i], {}};
      return false;
    }
    return true;
  };
  RunDigests digests;
  const Status status = PlayAndReset(session, run, &digests, choose, end);
  if (report->phase == RunPhase::kNone) *report = sampler;
  report->digests = digests;
  return status;
}

}  // namespace acorn
