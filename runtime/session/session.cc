#include "session/session.h"

#include "base/checked.h"
#include "session/trace.h"

namespace acorn {
namespace {

/// Whether a chunk is part of the conversation for the first time; what only the states see again leaves no trace elsewhere.
enum class Pass : uint8_t { kFirst, kAgain };

Span<Step> BodyOf(const Session &session) { return session.model->graph.profiles[session.profile].body; }

RunContext MakeContext(Session *session, Place *values) {
  Model *model = session->model;
  for (uint32_t v = 0; v < model->graph.values.size(); ++v) values[v] = model->values[v];
  RunContext context = {};
  context.graph = &model->graph;
  context.kernels = &model->kernels;
  context.parallel = model->parallel;
  context.values = values;
  context.caches = session->caches.data();
  context.states = session->states.data();
  context.ropes = model->ropes.data();
  context.step_scratch = model->scratch + model->scratch_plan.step;
  context.thread_scratch = model->scratch + model->scratch_plan.threads;
  context.thread_scratch_bytes = model->scratch_plan.thread_bytes;
  context.extent = model->extent;
  context.dials = model->dials;
  context.routing_hook = session->routing_hook;
  context.guess_hook = session->guess_hook;
  if (model->dims.expert_slots == 0) {
    context.experts = SourceOf(&model->resident, session->profile);
  } else {
    model->streaming.stop = &session->stop;
    context.experts = SourceOf(&model->streaming, session->profile);
  }
  // Of experts that lie in the image nothing is read ahead: a guess is made for who looks.
  const bool guesses = model->dims.expert_slots != 0 || context.guess_hook.run != nullptr;
  if (guesses && model->forecast.way != ExpertPrefetch::kOff) context.forecast = ForecastOf(&model->forecast, BodyOf(*session));
  return context;
}

// Whether a chunk that ends early leaves the session as it was. Caches do so by themselves: rows beyond the position are nobody's.
// States are kept aside, which costs a prefill's chunk next to nothing, and would cost a single token a good part of its time (19 MB for
// mamba2-130m, a quarter of its weights): it runs to its end, unless it waits for storage on its way.
bool CanTakeBack(const Session &session, size_t m) {
  return session.states.empty() || m > 1 || session.model->dims.expert_slots != 0;
}

// What a chunk of m tokens listens to.
Stop *StopOf(Session *session, size_t m) { return CanTakeBack(*session, m) ? &session->stop : nullptr; }

void KeepState(Session *session, const Step &step) {
  Model *model = session->model;
  const uint32_t index = StateOf(step);
  if (index == kNoState) return;
  __builtin_memcpy(model->kept_states[index], session->states[index], StateBytes(model->graph.states[index]));
  model->kept_count = index + 1;  // the steps of a body name them in this order
}

// first: index of the first of `steps` in the body and head together
Status RunSteps(Session *session, Span<Step> steps, size_t first, const RunContext &context, Pass pass) {
  Model *model = session->model;
  const bool traced = !model->trace.empty() && pass == Pass::kFirst;
  const bool timed = model->profile || traced;
  uint64_t before = timed ? model->clock.Now() : 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].kind == OpKind::kGlu && steps[i].glu.fused) continue;
    if (context.stop != nullptr) {
      ACORN_TRY(context.stop->Take());
      KeepState(session, steps[i]);
    }
    ACORN_TRY(RunStep(steps[i], context));
    if (!timed) continue;
    const uint64_t after = model->clock.Now();
    ProfileRow &row = model->profile_rows[model->profile_of_step[first + i]];
    row.ticks += after - before;
    ++row.calls;
    before = after;
    if (!traced) continue;
    model->trace[first + i] = DigestOutput(model->trace[first + i], steps[i], context);
    before = model->clock.Now();
  }
  // The last step may have ended early.
  return context.stop == nullptr ? Status::kOk : context.stop->Take();
}

// Rows of the columns that `op` has, out of rows of those of `whole`, `width` of them, which may lie in the same place: a column
// only ever moves to the front.
void KeepColumns(const ConvOp &op, IndexRuns whole, uint32_t width, const int16_t *from, int16_t *to) {
  for (uint32_t row = 0; row + 1 < op.taps; ++row, from += width, to += op.in.width) {
    ForStretches(op.columns, whole, width, [&](uint32_t source, uint32_t target, uint32_t count) {
      __builtin_memmove(to + target, from + source, count * sizeof(int16_t));
    });
  }
}

// The state of one step to what the constant prefix leaves behind.
void ResetState(Session *session, const Step &step) {
  const uint32_t index = StateOf(step);
  const State &state = session->model->graph.states[index];
  if (state.prefix == nullptr) {
    __builtin_memset(session->states[index], 0, StateBytes(state));
  } else if (step.kind == OpKind::kConv) {
    KeepColumns(step.conv, {}, state.columns, reinterpret_cast<const int16_t *>(state.prefix),
                reinterpret_cast<int16_t *>(session->states[index]));
  } else {
    __builtin_memcpy(session->states[index], state.prefix, StateBytes(state));
  }
}

// A model without states has nothing to see again.
void ResetStates(Session *session) {
  for (const Step &step : BodyOf(*session)) {
    if (StateOf(step) != kNoState) ResetState(session, step);
  }
  session->state_position = session->states.empty() ? session->position : 0;
}

// Undoes what a chunk of m tokens has done to the states. Where it cannot, some are behind the chunk and others before it: they
// start anew.
void TakeBack(Session *session, size_t m) {
  if (!CanTakeBack(*session, m)) return ResetStates(session);
  const Model *model = session->model;
  for (uint32_t i = 0; i < model->kept_count; ++i) {
    __builtin_memcpy(session->states[i], model->kept_states[i], StateBytes(model->graph.states[i]));
  }
}

// Whether somebody may want to know what the last layer makes of each token: a hook, a trace, and a cache of experts, whose
// decisions `acorn replay` foretells from all routes.
bool AllRowsCount(const Session &session) {
  const Model &model = *session.model;
  const bool hooked = session.routing_hook.run != nullptr || session.guess_hook.run != nullptr;
  return hooked || !model.trace.empty() || model.dims.expert_slots != 0;
}

// What rotations by position need, for rows of the conversation's tokens from `first` on.
void FillRopes(const Model &model, uint64_t first, size_t rows) {
  for (uint32_t i = 0; i < model.graph.ropes.size(); ++i) {
    const Rope &rope = model.graph.ropes[i];
    rotate::FillTable(model.ropes[i].cosine, model.ropes[i].sine, rope.frequencies, rope.rotary_dims / 2,
                      model.extent.prefix_rows + first, rows, rope.limit);
  }
}

// The body for the tokens [first, first + m) of the conversation, whose ids stand in their places. A failure is taken back.
// wanted: how many of the last rows somebody reads; the others end once caches and states have seen them
Status RunBody(Session *session, uint64_t first, size_t m, size_t wanted, Pass pass) {
  Model *model = session->model;
  Place values[kMaxValues];
  RunContext context = MakeContext(session, values);
  if (pass == Pass::kAgain) context.routing_hook = context.guess_hook = {};
  context.stop = StopOf(session, m);
  model->kept_count = 0;
  context.tokens = IdAt(*session, first);
  context.m = m;
  context.first_token = first;
  FillRopes(*model, first, m);
  if (session->written < first + m) session->written = first + m;
  const Span<Step> body = BodyOf(*session);
  const size_t tail = wanted == m || AllRowsCount(*session) ? body.size() : model->graph.profiles[session->profile].tail;
  Status status = RunSteps(session, body.subspan(0, tail), 0, context, pass);
  if (status == Status::kOk && tail != body.size() && wanted != 0) {
    for (uint32_t v = 0; v < model->graph.values.size(); ++v) values[v].data += (m - wanted) * values[v].row_bytes;
    context.tokens += m - wanted;
    context.m = wanted;
    context.first_token = first + m - wanted;
    FillRopes(*model, context.first_token, wanted);
    status = RunSteps(session, body.subspan(tail, body.size() - tail), tail, context, pass);
  }
  if (status != Status::kOk) {
    TakeBack(session, m);
  } else {
    session->state_position = first + m;
  }
  return status;
}

// Shows the states the tokens of the conversation that they have not seen.
Status CatchUp(Session *session) {
  while (session->state_position < session->position) {
    if (session->state_position < session->first_token) return Status::kRefill;
    ACORN_TRY(session->stop.Take());
    const uint64_t left = session->position - session->state_position, chunk = session->model->dims.chunk;
    ACORN_TRY(RunBody(session, session->state_position, left < chunk ? left : chunk, 0, Pass::kAgain));
  }
  return Status::kOk;
}

// The head for rows [row, row + m) of the last chunk; their logits lie in session->logit_rows.
Status RunHead(Session *session, size_t row, size_t m, Stop *stop) {
  Model *model = session->model;
  Place values[kMaxValues];
  RunContext context = MakeContext(session, values);
  Place &in = values[model->graph.body_out];
  in.data += row * in.row_bytes;
  values[model->graph.logits].data = reinterpret_cast<uint8_t *>(session->logit_rows.data());
  context.stop = stop;
  context.m = m;
  return RunSteps(session, model->graph.head, model->graph.body.size(), context, Pass::kFirst);
}

const int32_t *LogitsRow(const Session *session, size_t row) {
  return session->logit_rows.data() + row * (session->model->values[session->model->graph.logits].row_bytes / sizeof(int32_t));
}

// Hands the logits of a chunk's rows over.  first: index of the chunk's first token in the call
Status HandOver(Session *session, size_t first, size_t m, LogitsCallback callback, void *ctx) {
  const size_t block = session->model->dims.logit_rows;
  for (size_t row = 0; row < m; row += block) {
    const size_t rows = m - row < block ? m - row : block;
    session->logits = nullptr;  // it points where these rows are written
    ACORN_TRY(RunHead(session, row, rows, &session->stop));
    for (size_t r = 0; r < rows; ++r) {
      if (callback(ctx, first + row + r, LogitsRow(session, r), session->model->graph.vocab_size) != 0) return Status::kCancelled;
    }
    session->logits = LogitsRow(session, rows - 1);
  }
  return Status::kOk;
}

// Whether caches hold all that the token at `position` sees of those before it.
bool CachesReach(const Session &session, uint64_t position) {
  for (const Cache &cache : session.model->graph.caches) {
    const uint64_t seen = cache.window == 0 || position < cache.window ? position : cache.window - 1;
    const uint64_t rows = kv_cache::TokenRowsOf(session.model->extent, cache.window).count;
    uint64_t lost = session.written < rows ? 0 : session.written - rows;  // tokens before it have given their places to others
    if (cache.window != 0 && session.loaded >= cache.window && session.loaded - cache.window + 1 > lost) {
      lost = session.loaded - cache.window + 1;
    }
    if (seen != 0 && position - seen < lost) return false;
  }
  return true;
}

// Whether a conversation can go back there, and have what it would have had it never gone further.
bool CanRewind(const Session &session, uint64_t position) {
  const Dims &dims = session.model->dims;
  if (position == 0) return true;
  // States want all tokens again, and everything is computed again from them.
  if (!session.states.empty()) return dims.tokens != kEndless || session.position <= dims.context;
  const uint64_t ids = position < dims.context ? position : dims.context;
  return position - ids >= session.first_token && CachesReach(session, position);
}

}  // namespace

void WritePrefix(Session *session) {
  const Model *model = session->model;
  for (uint32_t i = 0; i < model->graph.caches.size(); ++i) {
    const Cache &cache = model->graph.caches[i];
    append::Args args = {};
    args.k_cache = session->caches[i].k;
    args.v_cache = session->caches[i].v;
    args.capacity = kv_cache::TokenRowsOf(model->extent, cache.window).all();
    args.m = model->graph.prefix_tokens.size();
    args.kv_heads = cache.kv_heads;
    args.head_dim = args.k_dim = args.v_dim = cache.head_dim;
    args.bits = cache.bits;
    args.k = cache.prefix_k;
    args.v = cache.prefix_v;
    args.k_stride = args.v_stride = size_t{cache.kv_heads} * cache.head_dim;
    if (args.m != 0) model->kernels.append->copy(args);
  }
}

void ResetSession(Session *session) {
  session->position = session->first_token = session->written = session->loaded = 0;
  session->logits = nullptr;
  session->timings = {};
  session->detokenizer = {};
  session->stop.Forget(Stop::kCancel);
  ResetStates(session);
  WritePrefix(session);
}

Status SetDeadline(Session *session, uint64_t ms) {
  Stop &stop = session->stop;
  const uint64_t per_second = session->model->ticks_per_second;
  if (ms != Stop::kNever && (stop.clock.ticks == nullptr || per_second == 0)) return Status::kPort;
  uint64_t ticks;
  if (ms == Stop::kNever || !CheckedMul(&ticks, ms / 1000, per_second) ||
      !CheckedAdd(&ticks, ticks, ms % 1000 * per_second / 1000) || !CheckedAdd(&ticks, ticks, stop.clock.Now())) {
    ticks = Stop::kNever;  // later than the clock can count
  }
  stop.deadline = ticks;
  stop.Forget(Stop::kDeadline);
  return Status::kOk;
}

Status SetRate(Session *session, uint32_t rate) {
  const Exclusive exclusive(session->model);
  const Span<Profile> profiles = session->model->graph.profiles;
  uint32_t profile = 0;
  while (profile < profiles.size() && profiles[profile].rate != rate) ++profile;
  if (profile == profiles.size()) return Status::kRate;
  if (profile == session->profile) return Status::kOk;
  // Nothing is in memory of a conversation that is empty, or whose states are to see it again from the start.
  const bool empty = session->state_position == 0;
  if (profile < session->profile && !empty) return Status::kRefill;
  // All else is used by its first dimensions, where it lies.
  const Span<Step> before = BodyOf(*session), after = profiles[profile].body;
  for (size_t i = 0; i < after.size(); ++i) {
    if (after[i].kind != OpKind::kConv) continue;
    const ConvOp &op = after[i].conv, &wide = before[i].conv;
    if (empty) {
      ResetState(session, after[i]);
    } else {
      auto *state = reinterpret_cast<int16_t *>(session->states[op.state]);
      KeepColumns(op, wide.columns, wide.in.width, state, state);
    }
  }
  session->profile = profile;
  return Status::kOk;
}

Status Feed(Session *session, Span<const int32_t> tokens, LogitsCallback callback, void *ctx) {
  Model *model = session->model;
  const Exclusive exclusive(model);
  for (const int32_t token : tokens) {
    if (token < 0 || static_cast<uint32_t>(token) >= model->graph.vocab_size) return Status::kToken;
  }
  if (tokens.size() > RoomOf(*session)) return Status::kContextFull;
  ACORN_TRY(CatchUp(session));
  for (size_t done = 0; done < tokens.size();) {
    ACORN_TRY(session->stop.Take());
    const size_t left = tokens.size() - done;
    const size_t m = left < model->dims.chunk ? left : model->dims.chunk;
    // The tokens may already lie in place (FeedText), which has made room for all of them.
    MakeRoom(session, m);
    __builtin_memmove(IdAt(*session, session->position), tokens.data() + done, m * sizeof(int32_t));
    const size_t wanted = callback != nullptr ? m : m == left ? 1 : 0;
    ACORN_TRY(RunBody(session, session->position, m, wanted, Pass::kFirst));  // a failure leaves the logits of the token before
    session->logits = nullptr;
    session->position += m;
    if (callback != nullptr) {
      ACORN_TRY(HandOver(session, done, m, callback, ctx));
    } else if (m == left) {
      ACORN_TRY(RunHead(session, m - 1, 1, nullptr));  // the tokens are kept, so their logits have to come
      session->logits = LogitsRow(session, 0);
    }
    done += m;
  }
  return Status::kOk;
}

Status FeedDraft(Session *session, size_t count) {
  const Exclusive exclusive(session->model);
  ACORN_TRY(RunBody(session, session->position, count, count, Pass::kFirst));  // a failure leaves the logits of the token before
  session->logits = nullptr;
  ACORN_TRY(RunHead(session, 0, count, nullptr));
  AcceptDraft(session, 0);
  return Status::kOk;
}

void AcceptDraft(Session *session, size_t index) {
  session->logits = LogitsRow(session, index);
  session->state_position = ++session->position;
}

bool MayDraft(const Session &session) {
  return session.states.empty() && session.model->trace.empty() && session.routing_hook.run == nullptr &&
         session.model->dials.bonus_q16 == 0;
}

void MakeRoom(Session *session, size_t count) {
  const uint64_t used = session->position - session->first_token;
  if (session->tokens.size() - used >= count) return;
  // A chunk more than anybody asks for, so that what a rewind of a chunk leaves is as much as ever.
  const Dims &dims = session->model->dims;
  const uint64_t kept = uint64_t{dims.context} + dims.chunk;
  __builtin_memmove(session->tokens.data(), session->tokens.data() + (used - kept), kept * sizeof(int32_t));
  session->first_token = session->position - kept;
}

Status Rewind(Session *session, uint64_t position) {
  const Exclusive exclusive(session->model);
  if (position > session->position) return Status::kArgument;
  if (position == session->position) return Status::kOk;
  if (!CanRewind(*session, position)) return Status::kRefill;
  session->position = position;
  session->logits = nullptr;
  if (position == 0) session->first_token = session->written = session->loaded = 0;
  if (session->state_position > session->position) ResetStates(session);
  return Status::kOk;
}

Status SampleNext(Session *session, const SamplerParams &params, uint32_t window, int32_t *token) {
  Model *model = session->model;
  const Exclusive exclusive(model);
  if (session->logits == nullptr) return Status::kState;
  ACORN_TRY(CheckSamplerParams(params));
  const uint64_t before = model->clock.Now();
  Span<const int32_t> logits(session->logits, model->graph.vocab_size);
  if (session->logit_hook != nullptr) {
    __builtin_memcpy(model->logit_copy.data(), logits.data(), logits.size() * sizeof(int32_t));
    session->logit_hook(session->logit_hook_ctx, model->logit_copy.data(), logits.size());
    logits = model->logit_copy;
  }
  Span<const int32_t> recent = NewestIds(*session);
  if (window != 0 && window < recent.size()) recent = recent.subspan(recent.size() - window, window);
  ACORN_TRY(Sample(token, logits, model->graph.logit_factor, recent, params, session->position, model->sampler_work));
  session->timings.sample_ticks += model->clock.Now() - before;
  ++session->timings.sample_tokens;
  return Status::kOk;
}

}  // namespace acorn
