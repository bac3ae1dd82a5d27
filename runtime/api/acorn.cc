// The wall: acorn.h over session/. Every call checks its arguments here; inside, nothing is checked twice.
#include "acorn.h"

#include "acorn_schema/file.h"
#include "api/message.h"
#include "ops/route.h"
#include "platform/features.h"
#include "session/session.h"
#include "session/snapshot.h"
#include "session/trace.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

// The opaque C objects are the runtime's own.
struct acorn_model : acorn::Model {};
struct acorn_session : acorn::Session {};

namespace {

using acorn::Fault;
using acorn::Model;
using acorn::OpenRequest;
using acorn::Session;
using acorn::Span;
using acorn::Status;

static_assert(static_cast<uint32_t>(Status::kArgument) == ACORN_ERR_ARGUMENT);
static_assert(static_cast<uint32_t>(Status::kState) == ACORN_ERR_STATE);
static_assert(static_cast<uint32_t>(Status::kToken) == ACORN_ERR_TOKEN);
static_assert(static_cast<uint32_t>(Status::kText) == ACORN_ERR_TEXT);
static_assert(static_cast<uint32_t>(Status::kRate) == ACORN_ERR_RATE);
static_assert(static_cast<uint32_t>(Status::kRefill) == ACORN_ERR_REFILL);
static_assert(static_cast<uint32_t>(Status::kForeign) == ACORN_ERR_FOREIGN);
static_assert(static_cast<uint32_t>(Status::kVersion) == ACORN_ERR_VERSION);
static_assert(static_cast<uint32_t>(Status::kTruncated) == ACORN_ERR_TRUNCATED);
static_assert(static_cast<uint32_t>(Status::kDamaged) == ACORN_ERR_DAMAGED);
static_assert(static_cast<uint32_t>(Status::kInvalid) == ACORN_ERR_INVALID);
static_assert(static_cast<uint32_t>(Status::kUnsupported) == ACORN_ERR_UNSUPPORTED);
static_assert(static_cast<uint32_t>(Status::kOtherModel) == ACORN_ERR_OTHER_MODEL);
static_assert(static_cast<uint32_t>(Status::kMemory) == ACORN_ERR_MEMORY);
static_assert(static_cast<uint32_t>(Status::kContextFull) == ACORN_ERR_CONTEXT_FULL);
static_assert(static_cast<uint32_t>(Status::kBuffer) == ACORN_ERR_BUFFER);
static_assert(static_cast<uint32_t>(Status::kPort) == ACORN_ERR_PORT);
static_assert(static_cast<uint32_t>(Status::kStorage) == ACORN_ERR_STORAGE);
static_assert(static_cast<uint32_t>(Status::kStalled) == ACORN_ERR_STALLED);
static_assert(static_cast<uint32_t>(Status::kCancelled) == ACORN_ERR_CANCELLED);
static_assert(static_cast<uint32_t>(Status::kDeadline) == ACORN_ERR_DEADLINE);
static_assert(ACORN_CPU_AVX2 == acorn::kFeatureAvx2 && ACORN_CPU_AVXVNNI == acorn::kFeatureAvxVnni &&
              ACORN_CPU_AVX512VNNI == acorn::kFeatureAvx512Vnni && ACORN_CPU_GFNI == acorn::kFeatureGfni &&
              ACORN_CPU_NEON == acorn::kFeatureNeon && ACORN_CPU_NEONDOT == acorn::kFeatureNeonDot &&
              ACORN_CPU_I8MM == acorn::kFeatureI8mm);
static_assert(ACORN_PHASE_PREFILL == static_cast<int>(acorn::RunPhase::kPrefill) &&
              ACORN_PHASE_DECODE == static_cast<int>(acorn::RunPhase::kDecode) &&
              ACORN_PHASE_SAMPLE == static_cast<int>(acorn::RunPhase::kSample));
static_assert(ACORN_STOP_LENGTH == static_cast<int>(acorn::StopReason::kLength) &&
              ACORN_STOP_CALLER == static_cast<int>(acorn::StopReason::kCaller));

static_assert(sizeof(acorn_route) == sizeof(acorn::Route) && offsetof(acorn_route, expert) == offsetof(acorn::Route, expert) &&
              offsetof(acorn_route, weight_q15) == offsetof(acorn::Route, weight));

static_assert(ACORN_HEADER_BYTES == acorn::kHeaderBytes);
static_assert(ACORN_NO_DEADLINE == acorn::Stop::kNever);
constexpr uint32_t kDefaultReadTimeoutMs = 10000;  // no storage that works takes as long
constexpr uint64_t kBlockAlignment = acorn::Arena::kAlignment;

acorn_status Out(Status status) { return static_cast<acorn_status>(status); }

bool Aligned(const void *p) { return reinterpret_cast<uintptr_t>(p) % kBlockAlignment == 0; }

Status MakeRequest(const acorn_image *image, const acorn_options *options, const acorn_port *port, OpenRequest *request) {
  *request = {};
  request->read_timeout_ms = kDefaultReadTimeoutMs;
  if (image == nullptr || image->data == nullptr || !Aligned(image->data)) return Status::kArgument;
  request->image = {static_cast<const uint8_t *>(image->data), image->bytes};
  uint32_t features = 0;
  if (port != nullptr) {
    if (port->struct_size != sizeof(acorn_port)) return Status::kArgument;
    features = port->cpu_features;
    request->parallel = {port->ctx, port->parallel_for, port->threads == 0 ? 1 : port->threads};
    request->clock = {port->ctx, port->ticks};
    request->port = *port;
  }
  if (options != nullptr) {
    if (options->struct_size != sizeof(acorn_options)) return Status::kArgument;
    constexpr uint32_t known = ACORN_OPEN_CHECK_WEIGHTS | ACORN_OPEN_PROFILE | ACORN_OPEN_SCALAR | ACORN_OPEN_TRACE;
    if (options->flags & ~known) return Status::kArgument;
    request->context = options->context_tokens;
    request->chunk = options->chunk_tokens;
    request->logit_rows = options->logit_rows;
    request->sessions = options->max_sessions;
    if (options->cpu_features != 0) features &= options->cpu_features;
    if (options->flags & ACORN_OPEN_SCALAR) features = 0;
    request->check_weights = (options->flags & ACORN_OPEN_CHECK_WEIGHTS) != 0;
    request->profile = (options->flags & ACORN_OPEN_PROFILE) != 0;
    request->trace = (options->flags & ACORN_OPEN_TRACE) != 0;
    if (options->expert_policy > ACORN_EXPERTS_EDGEMOE) return Status::kArgument;
    request->expert_policy = static_cast<acorn::ExpertPolicy>(options->expert_policy);
    if (options->expert_prefetch > ACORN_PREFETCH_PATH) return Status::kArgument;
    request->prefetch = static_cast<acorn::ExpertPrefetch>(options->expert_prefetch);
    request->expert_cache_bytes = options->expert_cache_bytes;
    if (options->drop_experts_q16 > 65536 || options->cache_routing_q16 > 65536) return Status::kArgument;
    request->dials = {options->drop_experts_q16 / 2, options->cache_routing_q16};
    request->rate = options->rate;
    if (options->read_timeout_ms != 0) request->read_timeout_ms = options->read_timeout_ms;
  }
  request->features = features;
  return Status::kOk;
}

void Report(acorn_fault *out, const Fault &fault) {
  if (out == nullptr) return;
  out->struct_size = sizeof(acorn_fault);
  out->status = Out(fault.status);
  out->section = fault.section;
  out->index = fault.index;
  out->offset = fault.offset;
}

void Log(const acorn_port *port, uint32_t level, const acorn::Message &message) {
  if (port != nullptr && port->log != nullptr) port->log(port->ctx, level, message.data(), message.size());
}

void LogFault(const acorn_port *port, const Fault &fault) {
  acorn::Message message;
  message.Text(acorn_status_text(Out(fault.status)));
  if (fault.section[0] != 0) {
    message.Text(": ").Text(fault.section).Text(" ").Number(fault.index).Text(", offset ").Number(fault.offset);
  }
  Log(port, 0, message);
}

void LogOpen(const acorn_port *port, const Model &model) {
  acorn::Message message;
  message.Text("opened ").Text(model.graph.name.data(), model.graph.name.size());
  message.Text(": ").Number(acorn::LayersOf(model.graph)).Text(" layers, context ").Number(model.dims.context);
  if (model.dims.tokens == acorn::kEndless) message.Text(" and no end");
  message.Text(", image ").Number(model.memory.image_bytes).Text(" bytes, block ").Number(model.memory.block_bytes);
  message.Text(" bytes, ").Number(model.dims.threads).Text(" threads");
  Log(port, 2, message);
}

void LogShortMemory(const acorn_port *port, uint64_t need, uint64_t have) {
  acorn::Message message;
  message.Text("the model file has ").Number(need).Text(" bytes, the memory for it ").Number(have);
  Log(port, 0, message);
}

void LogNoRead(const acorn_port *port) {
  acorn::Message message;
  message.Text("the port has no read for the model file");
  Log(port, 0, message);
}

// The first out.size() bytes of the model file.
Status ReadFile(const acorn_port &port, Span<uint8_t> out, Fault *fault) {
  if (port.read(port.ctx, out.data(), 0, out.size()) == 0) return Status::kOk;
  *fault = {Status::kPort, "read", 0, 0};
  return Status::kPort;
}

// Sampler parameters of the C struct, where zero means off.
Status MakeSampling(const acorn_sampling &in, acorn::SamplerParams *out) {
  if (in.struct_size != sizeof(acorn_sampling)) return Status::kArgument;
  *out = {};
  out->seed = in.seed;
  out->temperature_q16 = in.temperature_q16;
  out->top_k = in.top_k;
  if (in.top_p_q16 != 0) out->top_p_q16 = in.top_p_q16 < acorn::kSamplerOneQ16 ? in.top_p_q16 : acorn::kSamplerOneQ16;
  out->min_p_q16 = in.min_p_q16;
  if (in.repetition_penalty_q16 != 0) out->repetition_penalty_q16 = in.repetition_penalty_q16;
  return acorn::CheckSamplerParams(*out);
}

// The caller's hook by its own type, which session/ does not know.
void TellRoutes(void *ctx, uint32_t set, const acorn::Route *routes, size_t tokens, size_t top_k) {
  const auto &caller = *static_cast<const acorn::CallersHook *>(ctx);
  const auto hook = reinterpret_cast<acorn_routing_hook>(caller.callback);
  hook(caller.ctx, set, reinterpret_cast<const acorn_route *>(routes), tokens, top_k);
}

void SetHook(acorn::RoutingHook *to, acorn::CallersHook *caller, acorn_routing_hook hook, void *ctx) {
  *caller = {reinterpret_cast<void (*)()>(hook), ctx};
  *to = {caller, hook == nullptr ? nullptr : TellRoutes};
}

// Feeds under the clock of prefill.
template <typename Call>
Status TimedPrefill(Session *session, const Call &call) {
  const uint64_t before_tokens = session->position;
  const uint64_t before = session->model->clock.Now();
  const Status status = call();
  session->timings.prefill_ticks += session->model->clock.Now() - before;
  session->timings.prefill_tokens += session->position - before_tokens;
  return status;
}

acorn::TextFlags MakeFlags(uint32_t flags) {
  return {(flags & ACORN_TEXT_MARKUP) != 0, (flags & ACORN_TEXT_BOS) != 0, (flags & ACORN_TEXT_CHAT) != 0};
}

bool LegalText(const char *text, size_t bytes, uint32_t flags) {
  return (text != nullptr || bytes == 0) && (flags & ~(ACORN_TEXT_MARKUP | ACORN_TEXT_BOS | ACORN_TEXT_CHAT)) == 0;
}

}  // namespace

extern "C" {

const char *acorn_status_text(acorn_status status) {
#if defined(ACORN_STRIP_STRINGS)
  (void)status;
  return "";
#else
  switch (static_cast<Status>(status)) {
    case Status::kOk: return "ok";
    case Status::kArgument: return "an argument is null, misaligned or out of range";
    case Status::kState: return "the call is not legal in this state";
    case Status::kToken: return "a token id is outside the vocabulary";
    case Status::kText: return "the model has no tokenizer or no chat template for this text";
    case Status::kRate: return "the model file does not hold this rate";
    case Status::kRefill: return "this needs the conversation anew: reset the session and feed its tokens again";
    case Status::kForeign: return "not an Acorn file of this kind";
    case Status::kVersion: return "an Acorn file of another version";
    case Status::kTruncated: return "the file is shorter than it says";
    case Status::kDamaged: return "the file is damaged: a checksum does not match";
    case Status::kInvalid: return "the file breaks a rule of its format";
    case Status::kUnsupported: return "this build or machine cannot run the model file";
    case Status::kOtherModel: return "the snapshot is of another model file";
    case Status::kMemory: return "the memory block is smaller than the plan";
    case Status::kContextFull: return "the context is full";
    case Status::kBuffer: return "an output buffer is too small";
    case Status::kPort: return "a callback of the port failed";
    case Status::kStorage: return "a read of the model file failed";
    case Status::kStalled: return "the storage did not answer in time";
    case Status::kCancelled: return "cancelled";
    case Status::kDeadline: return "the time is over";
  }
  return "unknown status";
#endif
}

acorn_status acorn_image_read(acorn_image *image, uint64_t *need, const acorn_port *port, void *memory, size_t memory_bytes) {
  if (need != nullptr) *need = 0;
  if (image == nullptr || port == nullptr || port->struct_size != sizeof(acorn_port) || !Aligned(memory) ||
      (memory == nullptr && memory_bytes != 0)) {
    return ACORN_ERR_ARGUMENT;
  }
  uint8_t start[acorn::kHeaderBytes];
  Fault where;
  acorn::Header header;
  Status status = acorn::CheckByteOrder(&where);
  if (status == Status::kOk && port->read == nullptr) {
    LogNoRead(port);
    return ACORN_ERR_PORT;
  }
  if (status == Status::kOk) status = ReadFile(*port, {start, sizeof start}, &where);
  if (status == Status::kOk) status = acorn::ReadHeader({start, sizeof start}, &header, &where);
  if (status != Status::kOk) {
    LogFault(port, where);
    return Out(status);
  }
  if (need != nullptr) *need = header.file_bytes;
  if (header.file_bytes > memory_bytes) {
    // Without memory it was only a question.
    if (memory != nullptr) LogShortMemory(port, header.file_bytes, memory_bytes);
    return ACORN_ERR_MEMORY;
  }
  // The header comes a second time, with the rest. Should the file have changed in between, acorn_plan finds it: it trusts
  // nothing of what was seen here, and an image that is not as long as its own header says is refused.
  const size_t bytes = static_cast<size_t>(header.file_bytes);
  status = ReadFile(*port, {static_cast<uint8_t *>(memory), bytes}, &where);
  if (status != Status::kOk) {
    LogFault(port, where);
    return Out(status);
  }
  *image = {memory, bytes};
  return ACORN_OK;
}

acorn_status acorn_image_resident(uint64_t *bytes, const void *start, size_t start_bytes) {
  if (bytes == nullptr || start == nullptr) return ACORN_ERR_ARGUMENT;
  Fault where;
  acorn::Header header = {};
  Status status = acorn::CheckByteOrder(&where);
  if (status == Status::kOk) status = acorn::ReadHeader({static_cast<const uint8_t *>(start), start_bytes}, &header, &where);
  if (status == Status::kOk) *bytes = header.resident_bytes;
  return Out(status);
}

acorn_status acorn_plan(acorn_memory_plan *plan, acorn_fault *fault, const acorn_image *image, const acorn_options *options,
                        const acorn_port *port) {
  Fault where;
  Report(fault, where);
  OpenRequest request;
  if (plan == nullptr) return ACORN_ERR_ARGUMENT;
  Status status = MakeRequest(image, options, port, &request);
  if (status != Status::kOk) return Out(status);
  acorn::Dims dims;
  acorn::MemoryPlan memory;
  status = acorn::PlanModel(request, &dims, &memory, &where);
  Report(fault, where);
  if (status != Status::kOk) {
    LogFault(port, where);
    return Out(status);
  }
  *plan = {};
  plan->struct_size = sizeof(acorn_memory_plan);
  plan->context_tokens = dims.context;
  plan->chunk_tokens = dims.chunk;
  plan->logit_rows = dims.logit_rows;
  plan->max_sessions = dims.sessions;
  plan->threads = dims.threads;
  plan->image_bytes = memory.image_bytes;
  plan->model_bytes = memory.model_bytes;
  plan->session_bytes = memory.session_bytes;
  plan->scratch_bytes = memory.scratch_bytes;
  plan->block_bytes = memory.block_bytes;
  plan->reference_tokens = memory.reference_tokens;
  plan->expert_slot_bytes = memory.expert_slot_bytes;
  plan->experts = memory.experts;
  plan->expert_slots = dims.expert_slots;
  plan->useful_expert_slots = memory.useful_slots;
  plan->expert_record_bytes = memory.slot_bytes;
  plan->state_bytes = memory.state_bytes;
  plan->rates = memory.rates;
  plan->endless = dims.tokens == acorn::kEndless;
  return ACORN_OK;
}

acorn_status acorn_plan_rate(acorn_rate_plan *row, acorn_fault *fault, const acorn_image *image, const acorn_options *options,
                             const acorn_port *port, size_t index) {
  Fault where;
  Report(fault, where);
  OpenRequest request;
  if (row == nullptr || index >= acorn::kMaxProfiles) return ACORN_ERR_ARGUMENT;
  Status status = MakeRequest(image, options, port, &request);
  if (status != Status::kOk) return Out(status);
  acorn::MemoryPlan memory;
  acorn::RatePlan rate;
  status = acorn::PlanModelRate(request, static_cast<uint32_t>(index), &memory, &rate, &where);
  Report(fault, where);
  if (status != Status::kOk) {
    LogFault(port, where);
    return Out(status);
  }
  *row = {};
  row->struct_size = sizeof(acorn_rate_plan);
  row->rate = rate.rate;
  row->resident_bytes = memory.block_bytes + memory.image_bytes - rate.untouched_bytes;
  row->weight_bytes = rate.weight_bytes;
  row->prunable_bytes = rate.prunable_bytes;
  row->left_out_bytes = rate.left_out_bytes;
  row->cache_row_bytes = rate.cache_row_bytes;
  row->state_bytes = rate.state_bytes;
  return ACORN_OK;
}

acorn_status acorn_model_open(acorn_model **model, acorn_fault *fault, const acorn_image *image, const acorn_options *options,
                              const acorn_port *port, void *block, size_t block_bytes) {
  Fault where;
  Report(fault, where);
  OpenRequest request;
  if (model == nullptr || block == nullptr || !Aligned(block)) return ACORN_ERR_ARGUMENT;
  Status status = MakeRequest(image, options, port, &request);
  if (status != Status::kOk) return Out(status);
  Model *opened = nullptr;
  status = acorn::OpenModel(request, {static_cast<uint8_t *>(block), block_bytes}, &opened, &where);
  Report(fault, where);
  if (status != Status::kOk) {
    LogFault(port, where);
    return Out(status);
  }
  LogOpen(port, *opened);
  opened->ticks_per_second = port == nullptr ? 0 : port->ticks_per_second;
  *model = static_cast<acorn_model *>(opened);
  return ACORN_OK;
}

acorn_status acorn_model_rates(const acorn_model *model, uint32_t *rates, size_t capacity, size_t *count) {
  if (model == nullptr || count == nullptr || (rates == nullptr && capacity != 0)) return ACORN_ERR_ARGUMENT;
  const Span<acorn::Profile> profiles = model->graph.profiles;
  *count = profiles.size();
  if (capacity < profiles.size()) return ACORN_ERR_BUFFER;
  // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): null means a capacity of 0, which was too small
  for (size_t i = 0; i < profiles.size(); ++i) rates[i] = profiles[i].rate;
  return ACORN_OK;
}

acorn_status acorn_model_expert_stats(const acorn_model *model, acorn_expert_stats *stats) {
  if (model == nullptr || stats == nullptr) return ACORN_ERR_ARGUMENT;
  const acorn::ExpertCounts &counts = model->streaming.pool.counts();
  const acorn::ExpertTraffic &traffic = model->streaming.traffic;
  *stats = {};
  stats->struct_size = sizeof(acorn_expert_stats);
  stats->hits = counts.hits;
  stats->misses = counts.misses;
  stats->bytes_read = traffic.bytes_read;
  stats->stall_ticks = traffic.stall_ticks;
  stats->prefetches = counts.prefetches;
  stats->prefetches_used = counts.prefetches_used;
  return ACORN_OK;
}

acorn_status acorn_model_expert_fault(const acorn_model *model, acorn_expert_fault *fault) {
  if (model == nullptr || fault == nullptr) return ACORN_ERR_ARGUMENT;
  const acorn::ExpertFault &found = model->streaming.fault;
  *fault = {};
  fault->struct_size = sizeof(acorn_expert_fault);
  fault->status = Out(found.status);
  fault->layer = found.set;
  fault->expert = found.expert;
  fault->offset = found.offset;
  fault->error = found.error;
  return ACORN_OK;
}

acorn_status acorn_model_get_expert(const acorn_model *model, acorn_expert_info *info, uint32_t layer, uint32_t expert) {
  if (model == nullptr || info == nullptr || layer >= model->graph.expert_sets.size()) return ACORN_ERR_ARGUMENT;
  const acorn::ExpertSet &set = model->graph.expert_sets[layer];
  if (expert >= set.count) return ACORN_ERR_ARGUMENT;
  *info = {};
  info->struct_size = sizeof(acorn_expert_info);
  for (const acorn::Step &step : model->graph.body) {
    if (step.kind == acorn::OpKind::kExperts && step.experts.set == layer) info->top_k = step.experts.top_k;
  }
  const acorn::ExpertRecord *slices = set.slices_of(expert);
  info->offset = slices->offset;
  // An expert that no step names is whole.
  const uint32_t used = model->graph.profiles[model->first_profile].slices[layer];
  info->bytes = acorn::ReadBytes(slices, used == 0 ? set.slices : used);
  return ACORN_OK;
}

acorn_status acorn_model_get_info(const acorn_model *model, acorn_model_info *info) {
  if (model == nullptr || info == nullptr) return ACORN_ERR_ARGUMENT;
  const bool text = model->tokenizer.header != nullptr;
  *info = {};
  info->struct_size = sizeof(acorn_model_info);
  info->vocab_size = model->graph.vocab_size;
  info->max_context = model->graph.max_context;
  info->prefix_rows = static_cast<uint32_t>(model->graph.prefix_tokens.size());
  info->layers = acorn::LayersOf(model->graph);
  info->has_tokenizer = text;
  info->has_chat_template = text && acorn::HasChatTemplate(model->tokenizer);
  info->bos_token = text ? acorn::BosId(model->tokenizer) : -1;
  info->eos_token = text ? acorn::EosId(model->tokenizer) : -1;
  info->logit_multiplier = model->graph.logit_factor.multiplier;
  info->logit_shift = model->graph.logit_factor.shift;
  info->name = model->graph.name.data();
  info->name_bytes = model->graph.name.size();
  info->family = model->graph.family.data();
  info->family_bytes = model->graph.family.size();
  return ACORN_OK;
}

acorn_status acorn_tokenize(acorn_model *model, int32_t *ids, size_t capacity, size_t *count, const char *text, size_t bytes,
                            uint32_t flags) {
  if (model == nullptr || count == nullptr || (ids == nullptr && capacity != 0) || !LegalText(text, bytes, flags)) {
    return ACORN_ERR_ARGUMENT;
  }
  *count = 0;
  return Out(acorn::EncodeText(model, {}, {text, bytes}, MakeFlags(flags), {ids, capacity}, count));
}

acorn_status acorn_token_text(const acorn_model *model, char *text, size_t capacity, size_t *bytes, int32_t token) {
  if (model == nullptr || bytes == nullptr || (text == nullptr && capacity != 0)) return ACORN_ERR_ARGUMENT;
  *bytes = 0;
  if (model->tokenizer.header == nullptr) return ACORN_ERR_TEXT;
  if (token < 0 || static_cast<uint32_t>(token) >= acorn::VocabSize(model->tokenizer)) return ACORN_ERR_TOKEN;
  const Span<const uint8_t> source = acorn::TokenText(model->tokenizer, token);
  *bytes = source.size();
  if (source.size() > capacity) return ACORN_ERR_BUFFER;
  // NOLINTNEXTLINE(clang-analyzer-unix.cstring.NullArg): null means a capacity of 0, which was too small
  if (!source.empty()) __builtin_memcpy(text, source.data(), source.size());
  return ACORN_OK;
}

acorn_status acorn_session_open(acorn_session **session, acorn_model *model) {
  if (session == nullptr || model == nullptr) return ACORN_ERR_ARGUMENT;
  const acorn::Exclusive exclusive(model);
  for (Session *candidate : model->sessions) {
    if (candidate->taken) continue;
    candidate->taken = true;
    candidate->logit_hook = nullptr;
    candidate->routing_hook = candidate->guess_hook = {};
    candidate->profile = model->first_profile;
    candidate->stop.deadline = acorn::Stop::kNever;
    acorn::ResetSession(candidate);
    *session = static_cast<acorn_session *>(candidate);
    return ACORN_OK;
  }
  return ACORN_ERR_STATE;
}

void acorn_session_close(acorn_session *session) {
  if (session == nullptr) return;
  const acorn::Exclusive exclusive(session->model);
  session->taken = false;
}

void acorn_session_reset(acorn_session *session) {
  if (session == nullptr) return;
  const acorn::Exclusive exclusive(session->model);
  acorn::ResetSession(session);
}

acorn_status acorn_session_set_rate(acorn_session *session, uint32_t rate) {
  return session == nullptr ? static_cast<acorn_status>(ACORN_ERR_ARGUMENT) : Out(acorn::SetRate(session, rate));
}

uint32_t acorn_session_rate(const acorn_session *session) { return session == nullptr ? 0 : acorn::RateOf(*session); }

acorn_status acorn_session_prefill(acorn_session *session, const int32_t *tokens, size_t count) {
  if (session == nullptr || tokens == nullptr || count == 0) return ACORN_ERR_ARGUMENT;
  return Out(TimedPrefill(session, [&] { return acorn::Feed(session, {tokens, count}, nullptr, nullptr); }));
}

acorn_status acorn_session_score(acorn_session *session, const int32_t *tokens, size_t count, acorn_logits_callback callback,
                                 void *ctx) {
  if (session == nullptr || tokens == nullptr || count == 0 || callback == nullptr) return ACORN_ERR_ARGUMENT;
  return Out(TimedPrefill(session, [&] { return acorn::Feed(session, {tokens, count}, callback, ctx); }));
}

acorn_status acorn_session_decode(acorn_session *session, const int32_t **logits, int32_t token) {
  if (session == nullptr) return ACORN_ERR_ARGUMENT;
  const uint64_t before = session->model->clock.Now();
  const Status status = acorn::Feed(session, {&token, 1}, nullptr, nullptr);
  if (status != Status::kOk) return Out(status);
  session->timings.decode_ticks += session->model->clock.Now() - before;
  ++session->timings.decode_tokens;
  if (logits != nullptr) *logits = session->logits;
  return ACORN_OK;
}

acorn_status acorn_session_logits(acorn_session *session, const int32_t **logits) {
  if (session == nullptr || logits == nullptr) return ACORN_ERR_ARGUMENT;
  if (session->logits == nullptr) return ACORN_ERR_STATE;
  *logits = session->logits;
  return ACORN_OK;
}

uint64_t acorn_session_position(const acorn_session *session) { return session == nullptr ? 0 : session->position; }

uint64_t acorn_session_capacity(const acorn_session *session) { return session == nullptr ? 0 : session->model->dims.tokens; }

const int32_t *acorn_session_tokens(const acorn_session *session) {
  return session == nullptr ? nullptr : acorn::NewestIds(*session).data();
}

acorn_status acorn_session_rewind(acorn_session *session, uint64_t position) {
  return session == nullptr ? static_cast<acorn_status>(ACORN_ERR_ARGUMENT) : Out(acorn::Rewind(session, position));
}

size_t acorn_session_snapshot_bytes(const acorn_session *session) {
  return session == nullptr ? 0 : static_cast<size_t>(acorn::SnapshotBytes(*session));
}

acorn_status acorn_session_save(const acorn_session *session, void *snapshot, size_t bytes) {
  if (session == nullptr || snapshot == nullptr) return ACORN_ERR_ARGUMENT;
  return Out(acorn::SaveSession(*session, {static_cast<uint8_t *>(snapshot), bytes}));
}

acorn_status acorn_session_load(acorn_session *session, const void *snapshot, size_t bytes) {
  if (session == nullptr || snapshot == nullptr) return ACORN_ERR_ARGUMENT;
  return Out(acorn::LoadSession(session, {static_cast<const uint8_t *>(snapshot), bytes}));
}

void acorn_session_set_logit_hook(acorn_session *session, acorn_logit_hook hook, void *ctx) {
  if (session == nullptr) return;
  session->logit_hook = hook;
  session->logit_hook_ctx = ctx;
}

void acorn_session_set_routing_hook(acorn_session *session, acorn_routing_hook hook, void *ctx) {
  if (session != nullptr) SetHook(&session->routing_hook, &session->routing_caller, hook, ctx);
}

void acorn_session_set_guess_hook(acorn_session *session, acorn_routing_hook hook, void *ctx) {
  if (session != nullptr) SetHook(&session->guess_hook, &session->guess_caller, hook, ctx);
}

acorn_status acorn_session_sample(acorn_session *session, int32_t *token, const acorn_sampling *sampling) {
  if (session == nullptr || token == nullptr || sampling == nullptr) return ACORN_ERR_ARGUMENT;
  acorn::SamplerParams params;
  const Status status = MakeSampling(*sampling, &params);
  return Out(status != Status::kOk ? status : acorn::SampleNext(session, params, sampling->repetition_window, token));
}

acorn_status acorn_session_append_text(acorn_session *session, const char *text, size_t bytes, uint32_t flags) {
  if (session == nullptr || !LegalText(text, bytes, flags)) return ACORN_ERR_ARGUMENT;
  return Out(TimedPrefill(session, [&] { return acorn::FeedText(session, {text, bytes}, MakeFlags(flags)); }));
}

acorn_status acorn_session_generate(acorn_session *session, uint32_t *reason, size_t *count, const acorn_generation *generation) {
  if (session == nullptr || generation == nullptr || generation->struct_size != sizeof(acorn_generation) ||
      (generation->stop_strings == nullptr && generation->stop_count != 0)) {
    return ACORN_ERR_ARGUMENT;
  }
  acorn::Generation inner = {};
  inner.max_tokens = generation->max_tokens;
  Status status = MakeSampling(generation->sampling, &inner.sampling);
  if (status != Status::kOk) return Out(status);
  inner.repetition_window = generation->sampling.repetition_window;
  inner.draft_tokens = generation->draft_tokens;
  inner.stop_strings = {generation->stop_strings, generation->stop_count};
  inner.callback = generation->callback;
  inner.ctx = generation->ctx;
  acorn::StopReason why;
  size_t accepted = 0;
  status = acorn::Generate(session, inner, &why, &accepted);
  if (reason != nullptr) *reason = static_cast<uint32_t>(why);
  if (count != nullptr) *count = accepted;
  return Out(status);
}

void acorn_session_cancel(acorn_session *session) {
  if (session != nullptr) session->stop.Ask(acorn::Stop::kCancel);
}

acorn_status acorn_session_set_deadline(acorn_session *session, uint64_t ms) {
  return session == nullptr ? static_cast<acorn_status>(ACORN_ERR_ARGUMENT) : Out(acorn::SetDeadline(session, ms));
}

acorn_status acorn_session_timings(const acorn_session *session, acorn_timings *timings) {
  if (session == nullptr || timings == nullptr) return ACORN_ERR_ARGUMENT;
  const acorn::Timings &sums = session->timings;
  *timings = {};
  timings->struct_size = sizeof(acorn_timings);
  timings->prefill_ticks = sums.prefill_ticks;
  timings->prefill_tokens = sums.prefill_tokens;
  timings->decode_ticks = sums.decode_ticks;
  timings->decode_tokens = sums.decode_tokens;
  timings->sample_ticks = sums.sample_ticks;
  timings->sample_tokens = sums.sample_tokens;
  timings->drafted_tokens = sums.drafted_tokens;
  timings->accepted_tokens = sums.accepted_tokens;
  timings->ticks_per_second = session->model->ticks_per_second;
  return ACORN_OK;
}

acorn_status acorn_model_profile(const acorn_model *model, acorn_profile_row *row, size_t index) {
  if (model == nullptr || row == nullptr || !model->profile || index >= model->profile_count) return ACORN_ERR_ARGUMENT;
  const acorn::ProfileRow &source = model->profile_rows[index];
  *row = {};
  row->struct_size = sizeof(acorn_profile_row);
  row->name = source.name;
  row->ticks = source.ticks;
  row->calls = source.calls;
  return ACORN_OK;
}

acorn_status acorn_model_trace(const acorn_model *model, acorn_trace_row *row, size_t index) {
  if (model == nullptr || row == nullptr) return ACORN_ERR_ARGUMENT;
  if (model->trace.empty()) return ACORN_ERR_STATE;
  if (index >= model->trace.size()) return ACORN_ERR_ARGUMENT;
  *row = {};
  row->struct_size = sizeof(acorn_trace_row);
  row->layer = acorn::LayerOf(model->graph, index);
  row->op = acorn::OpName(acorn::StepOf(model->graph, index).kind);
  row->kernel = model->profile_rows[model->profile_of_step[index]].name;
  row->digest = model->trace[index];
  return ACORN_OK;
}

void acorn_model_trace_reset(acorn_model *model) {
  if (model != nullptr) acorn::ResetTrace(model);
}

acorn_status acorn_session_selftest(acorn_session *session, acorn_selftest_report *report) {
  if (session == nullptr || report == nullptr) return ACORN_ERR_ARGUMENT;
  acorn::RunReport found;
  const Status status = acorn::CheckRun(session, &found);
  if (status != Status::kOk) return Out(status);
  const Model &model = *session->model;
  *report = {};
  report->struct_size = sizeof(acorn_selftest_report);
  report->passed = found.phase == acorn::RunPhase::kNone;
  report->phase = static_cast<uint32_t>(found.phase);
  report->step = static_cast<uint32_t>(found.index);
  report->layer = -1;
  report->tokens = model.memory.reference_tokens;
  report->expected = found.expected;
  report->actual = found.actual;
  report->digest = found.digests.logits;
  report->ids_digest = found.digests.ids;
  if (found.phase == acorn::RunPhase::kSample) {
    report->op = "Sampler";
    report->kernel = "sampler/scalar";
  } else if (found.phase != acorn::RunPhase::kNone) {
    report->layer = acorn::LayerOf(model.graph, found.index);
    report->op = acorn::OpName(acorn::StepOf(model.graph, found.index).kind);
    report->kernel = model.profile_rows[model.profile_of_step[found.index]].name;
  }
  return ACORN_OK;
}

acorn_status acorn_session_record(acorn_session *session, acorn_reference_run *run) {
  if (session == nullptr || run == nullptr || run->struct_size != sizeof(acorn_reference_run) || run->prompt == nullptr ||
      run->generated == nullptr || run->prefill_digests == nullptr || run->decode_digests == nullptr || run->prompt_count == 0 ||
      run->generated_count == 0 || run->prompt_count > acorn::kMaxReferenceTokens ||
      run->generated_count > acorn::kMaxReferenceTokens - run->prompt_count || run->sampled_count > run->generated_count ||
      run->temperature_q16 == 0 || run->temperature_q16 > acorn::kMaxReferenceTemperatureQ16) {
    return ACORN_ERR_ARGUMENT;
  }
  if (run->steps < session->model->trace.size()) return ACORN_ERR_BUFFER;
  acorn::ReferenceRun inner = {};
  inner.prompt = {run->prompt, run->prompt_count};
  inner.generated = {run->generated, run->generated_count};
  inner.sampled = run->sampled_count;
  inner.temperature_q16 = run->temperature_q16;
  inner.seed = run->seed;
  return Out(acorn::RecordRun(session, inner, {run->generated, run->generated_count}, {run->prefill_digests, run->steps},
                              {run->decode_digests, run->steps}));
}

}  // extern "C"
