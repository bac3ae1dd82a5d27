#include "acorn_schema/file.h"
#include "session/session.h"
#include "session/trace.h"

namespace acorn {
namespace {

static_assert(kMaxExpertsOfAll <= kMaxExpertKeys);

constexpr uint32_t kDefaultChunk = 128;
constexpr uint32_t kMaxChunk = 1024;
constexpr uint32_t kMaxLogitRows = 256;
constexpr uint32_t kMaxSessions = 1024;

// Everything that PlanModel and OpenModel both need.
struct Opening {
  ModelReader reader;
  Graph summary = {};
  GraphCounts counts = {};
  Dims dims = {};
  KernelSet kernels = {};
  ScratchPlan scratch = {};
  StreamingShape streaming = {};  // without slots: experts are used where they lie
  ForecastShape forecast = {};    // nobody guesses
  Tokenizer tokenizer = {};
  MemoryPlan memory = {};
  uint32_t profile = 0;  // that sessions start with
};

uint64_t TextBytes(const Tokenizer &tokenizer) {
  constexpr uint64_t kFlushBytes = 4;
  return kMaxStopBytes + 1 + kFlushBytes + (tokenizer.header == nullptr ? 0 : MaxAppendBytes(tokenizer));
}

// The parts of a model's own memory; the same order for counting and for opening.
Status LayOutModel(const GraphCounts &counts, const Dims &dims, const StreamingShape &streaming, const ForecastShape &forecast,
                   Arena *arena, Arena *slots, Model **model) {
  const Span<Model> self = arena->Take<Model>(1);
  const Span<Value> values = arena->Take<Value>(counts.values);
  const Span<Weight> weights = arena->Take<Weight>(counts.weights);
  const Span<Rope> ropes = arena->Take<Rope>(counts.ropes);
  const Span<Cache> caches = arena->Take<Cache>(counts.caches);
  const Span<State> states = arena->Take<State>(counts.states);
  const Span<ExpertSet> expert_sets = arena->Take<ExpertSet>(counts.expert_sets);
  const Span<ExpertRecord> expert_records = arena->Take<ExpertRecord>(counts.expert_records);
  const Span<uint8_t *> kept_states = arena->Take<uint8_t *>(counts.states);
  const Span<uint8_t> verified = arena->Take<uint8_t>(counts.expert_records);
  const Span<Profile> profiles = arena->Take<Profile>(counts.profiles);
  const Span<uint8_t> slices = arena->Take<uint8_t>(uint64_t{counts.profiles} * counts.expert_sets);
  const Span<Step> bodies = arena->Take<Step>(uint64_t{counts.profiles} * counts.body);
  const Span<Step> head = arena->Take<Step>(counts.head);
  const Span<RopePlace> rope_places = arena->Take<RopePlace>(counts.ropes);
  const Span<uint8_t> profile_of_step = arena->Take<uint8_t>(uint64_t{counts.body} + counts.head);
  const Span<uint64_t> trace = arena->Take<uint64_t>(dims.trace_steps);
  const Span<Session *> sessions = arena->Take<Session *>(dims.sessions);
  Forecast guesses = {};
  LayOutForecast(forecast, arena, &guesses);
  if (self.empty()) {
    StreamingExperts none;
    return dims.expert_slots == 0 ? Status::kOk : LayOutStreaming(streaming, arena, slots, &none);
  }
  *model = self.data();  // NOLINT(clang-analyzer-core.NullDereference): who hands in a block wants the model
  **model = Model{};
  (*model)->graph.values = values;
  (*model)->graph.weights = weights;
  (*model)->graph.ropes = ropes;
  (*model)->graph.caches = caches;
  (*model)->graph.states = states;
  (*model)->graph.expert_sets = expert_sets;
  (*model)->expert_records = expert_records;
  (*model)->kept_states = kept_states;
  (*model)->resident.verified = verified;
  (*model)->forecast = guesses;
  (*model)->graph.profiles = profiles;
  for (uint32_t p = 0; p < counts.profiles; ++p) {
    profiles[p] = {0, bodies.subspan(uint64_t{p} * counts.body, counts.body),
                   slices.subspan(uint64_t{p} * counts.expert_sets, counts.expert_sets), 0};
  }
  (*model)->graph.body = profiles[0].body;
  (*model)->graph.head = head;
  (*model)->ropes = rope_places;
  (*model)->profile_of_step = profile_of_step;
  (*model)->trace = trace;
  (*model)->sessions = sessions;
  return dims.expert_slots == 0 ? Status::kOk : LayOutStreaming(streaming, arena, slots, &(*model)->streaming);
}

// The scratch serves a chunk, or text and sampling between chunks.
void LayOutScratch(const Opening &opening, Arena *arena, Model *model) {
  Arena steps;
  steps.Take<uint8_t>(opening.scratch.bytes);
  steps.Take<uint8_t>(opening.memory.state_bytes);
  Arena other(model == nullptr ? nullptr : model->scratch);
  const uint32_t vocab = opening.summary.vocab_size;
  const Span<uint8_t> text_work = other.Take<uint8_t>(opening.tokenizer.header == nullptr ? 0 : kMaxEncodeWorkBytes);
  const Span<int32_t> logit_copy = other.Take<int32_t>(vocab);
  const Span<uint8_t> sampler_work = other.Take<uint8_t>(uint64_t{8} * vocab);
  arena->Take<uint8_t>(steps.used() > other.used() ? steps.used() : other.used());
  if (model == nullptr) return;
  model->text_work = text_work;
  model->logit_copy = logit_copy;
  model->sampler_work = sampler_work;
}

// Where no cache keeps all tokens, nothing that a session keeps grows with them.
void FindEnd(const OpenRequest &request, Opening *opening) {
  bool grows = request.context != 0 || opening->counts.caches == 0;
  for (uint32_t i = 0; i < opening->counts.caches; ++i) grows = grows || opening->reader.WindowOf(i) == 0;
  opening->dims.tokens = grows ? opening->dims.context : kEndless;
}

Status ResolveDims(const OpenRequest &request, Opening *opening) {
  Dims &dims = opening->dims;
  dims.context = request.context == 0 ? opening->summary.max_context : request.context;
  dims.chunk = request.chunk == 0 ? kDefaultChunk : request.chunk;
  dims.logit_rows = request.logit_rows == 0 ? 1 : request.logit_rows;
  dims.sessions = request.sessions == 0 ? 1 : request.sessions;
  dims.threads = request.parallel.threads == 0 || request.parallel.parallel_for == nullptr ? 1 : request.parallel.threads;
  dims.features = request.features;
  dims.trace_steps = request.trace ? opening->counts.body + opening->counts.head : 0;
  if (dims.context > opening->summary.max_context || dims.chunk > kMaxChunk || dims.logit_rows > kMaxLogitRows ||
      dims.sessions > kMaxSessions || dims.threads > kMaxThreads) {
    return Status::kArgument;
  }
  if (dims.chunk > dims.context) dims.chunk = dims.context;
  if (dims.logit_rows > dims.chunk) dims.logit_rows = dims.chunk;
  FindEnd(request, opening);
  return Status::kOk;
}

// The slots that a profile would have, of the largest of what its steps use of an expert.
Status ResolveSlots(const OpenRequest &request, Opening *opening, uint32_t profile, SlotLayout *layout) {
  for (uint32_t i = 0; i < opening->counts.body; ++i) {
    Step step;
    ACORN_TRY(opening->reader.ReadStep(BodyOf(profile), i, &step));
    if (step.kind != OpKind::kExperts) continue;
    ExpertSet set;
    ACORN_TRY(opening->reader.ReadExpertSet(step.experts.set, &set));
    const uint64_t bytes = set.bytes[step.experts.slices - 1];
    if (bytes > layout->bytes) layout->bytes = bytes;
  }
  // NOLINTNEXTLINE(clang-analyzer-core.DivideZero): at least what the smallest slice has
  const uint64_t slots = request.expert_cache_bytes / layout->bytes;
  layout->count = slots < opening->counts.experts ? static_cast<uint32_t>(slots) : opening->counts.experts;
  return Status::kOk;
}

// How many experts memory has room for. Fewer than one layer's token needs work too, one after the other.
Status ResolveExperts(const OpenRequest &request, Opening *opening) {
  ModelReader &reader = opening->reader;
  MemoryPlan &memory = opening->memory;
  StreamingShape &shape = opening->streaming;
  ForecastShape forecast = {request.prefetch, opening->counts.expert_sets, 0, 0, 0, 0};
  shape.pool.layers = opening->counts.expert_sets;
  uint64_t least = 0;  // of a slot, whatever its profile uses
  for (uint32_t i = 0; i < opening->counts.expert_sets; ++i) {
    ExpertSet set;
    ACORN_TRY(reader.ReadExpertSet(i, &set));
    if (set.count > shape.pool.experts) shape.pool.experts = set.count;
    if (set.slices > shape.slices) shape.slices = set.slices;
    if (set.bytes[0] > least) least = set.bytes[0];
  }
  if (opening->counts.experts == 0) return Status::kOk;
  shape.profiles = opening->counts.profiles;
  for (uint32_t p = 0; p < shape.profiles; ++p) {
    shape.layouts[p] = {least, 0};
    ACORN_TRY(ResolveSlots(request, opening, p, &shape.layouts[p]));
    if (shape.layouts[p].count > shape.pool.slots) shape.pool.slots = shape.layouts[p].count;
  }
  const SlotLayout &layout = shape.layouts[opening->profile];
  memory.experts = opening->counts.experts;
  memory.slot_bytes = layout.bytes;
  forecast.experts = shape.pool.experts;
  for (uint32_t i = 0; i < opening->counts.body; ++i) {
    Step step;
    ACORN_TRY(reader.ReadStep(StepList::kBody, i, &step));
    if (step.kind != OpKind::kExperts) continue;
    memory.useful_slots += step.experts.top_k;
    Value in, router;
    ACORN_TRY(reader.ReadValue(step.experts.in.value, &in));
    ACORN_TRY(reader.ReadValue(step.experts.router.value, &router));
    if (in.width > forecast.hidden) forecast.hidden = in.width;
    if (router.width > forecast.logits) forecast.logits = router.width;
    if (step.experts.top_k > forecast.top_k) forecast.top_k = step.experts.top_k;
  }
  // A gate is of use to a guess hook wherever the experts are.
  if (request.expert_cache_bytes != 0 || request.prefetch == ExpertPrefetch::kGate) opening->forecast = forecast;
  if (request.expert_cache_bytes == 0) {
    return reader.has_experts() ? Status::kOk : reader.Fail(Status::kTruncated, "experts", 0, request.image.size());
  }
  if (!Storage(request.port, 0).CanRead()) return reader.Fail(Status::kPort, "experts", 0, 0);
  // Those of rate 0 are the largest, and any session may go there.
  if (shape.layouts[0].count == 0) return reader.Fail(Status::kMemory, "expert cache", 0, shape.layouts[0].bytes);
  opening->dims.expert_slots = layout.count;
  shape.pool.policy = request.expert_policy;
  return Status::kOk;
}

Status ResolveRate(const OpenRequest &request, Opening *opening) {
  for (uint32_t p = 0; p < opening->counts.profiles; ++p) {
    if (opening->reader.RateOf(p) != request.rate) continue;
    opening->profile = p;
    return Status::kOk;
  }
  return opening->reader.Fail(Status::kRate, "rate", request.rate, 0);
}

Status CheckTokenizer(Opening *opening) {
  if (opening->summary.tokenizer.empty()) return Status::kOk;
  TokenizerFault where;
  const Status status = OpenTokenizer(&opening->tokenizer, opening->summary.tokenizer, &where);
  if (status != Status::kOk) return opening->reader.Fail(status, "tokenizer", where.table, where.index);
  if (VocabSize(opening->tokenizer) > opening->summary.vocab_size) {
    return opening->reader.Fail(Status::kInvalid, "tokenizer", VocabSize(opening->tokenizer), 0);
  }
  return Status::kOk;
}

Status Prepare(const OpenRequest &request, Opening *opening) {
  ACORN_TRY(opening->reader.Open(request.image, request.check_weights));
  ACORN_TRY(opening->reader.ReadSummary(&opening->summary, &opening->counts));
  ACORN_TRY(CheckTokenizer(opening));
  ACORN_TRY(ResolveRate(request, opening));
  ACORN_TRY(ResolveDims(request, opening));
  ACORN_TRY(ResolveExperts(request, opening));
  opening->kernels = SelectKernels(opening->dims.features);
  ACORN_TRY(PlanScratch(&opening->reader, opening->summary, opening->counts, opening->dims, opening->kernels, &opening->scratch));
  // Those that no step names too: what a plan lets pass opens.
  for (uint32_t i = 0; i < opening->counts.weights; ++i) {
    Weight weight;
    ACORN_TRY(opening->reader.ReadWeight(i, &weight));
  }

  Arena model, slots;
  ACORN_TRY(LayOutModel(opening->counts, opening->dims, opening->streaming, opening->forecast, &model, &slots, nullptr));
  Arena session;
  LayOutSession(opening->summary, opening->counts, opening->dims, TextBytes(opening->tokenizer), &session, nullptr);
  for (uint32_t i = 0; i < opening->counts.caches; ++i) {
    Cache cache;
    ACORN_TRY(opening->reader.ReadCache(i, &cache));
    const kv_cache::Extent extent = ExtentOf(opening->dims, opening->summary.prefix_tokens.size());
    const uint64_t rows = kv_cache::TokenRowsOf(extent, cache.window).all();
    const uint64_t bytes = kv_cache::CacheBytes(rows, cache.kv_heads, cache.head_dim, cache.bits);
    session.Take<uint8_t>(bytes);
    session.Take<uint8_t>(bytes);
  }
  for (uint32_t i = 0; i < opening->counts.states; ++i) {
    State state;
    ACORN_TRY(opening->reader.ReadState(i, &state));
    const uint64_t before = session.used();
    session.Take<uint8_t>(StateBytes(state));
    opening->memory.state_bytes += session.used() - before;
  }
  Arena scratch;
  LayOutScratch(*opening, &scratch, nullptr);
  Arena block;
  block.Take<uint8_t>(model.used());
  for (uint32_t i = 0; i < opening->dims.sessions; ++i) block.Take<uint8_t>(session.used());
  block.Take<uint8_t>(scratch.used());
  block.Take<uint8_t>(slots.used());
  if (model.overflow() || session.overflow() || scratch.overflow() || slots.overflow() || block.overflow()) {
    return opening->reader.Fail(Status::kInvalid, "caches", 0, 0);
  }
  opening->reader.EndChecks();
  const ReferenceRun &run = opening->summary.reference;
  const auto run_tokens = static_cast<uint32_t>(run.prompt.size() + run.generated.size());
  MemoryPlan &memory = opening->memory;
  memory.image_bytes = request.image.size();
  memory.model_bytes = model.used();
  memory.session_bytes = session.used();
  memory.scratch_bytes = scratch.used();
  memory.expert_slot_bytes = slots.used();
  memory.block_bytes = block.used();
  memory.reference_tokens = run_tokens;
  memory.rates = opening->counts.profiles;
  return Status::kOk;
}

// Glus become part of the linear layers before them.  fused: of the plan
void FuseSteps(Span<Step> body, uint64_t fused) {
  for (size_t i = 0; i + 1 < body.size(); ++i) {
    if (!CanFuse(body[i], body[i + 1]) || (fused >> body[i].linear.out.value & 1) == 0) continue;
    body[i].linear.glu = &body[i + 1].glu;
    body[i + 1].glu.fused = true;
  }
}

// The first step behind all that write to caches and states.
size_t TailOf(Span<Step> body) {
  size_t tail = body.size();
  while (tail != 0 && body[tail - 1].kind != OpKind::kAppend && StateOf(body[tail - 1]) == kNoState) --tail;
  return tail;
}

// fused: of the plan
Status ReadGraph(Opening *opening, Span<ExpertRecord> records, uint64_t fused, Graph *graph) {
  ModelReader &reader = opening->reader;
  for (uint32_t i = 0; i < graph->values.size(); ++i) ACORN_TRY(reader.ReadValue(i, &graph->values[i]));
  for (uint32_t i = 0; i < graph->weights.size(); ++i) ACORN_TRY(reader.ReadWeight(i, &graph->weights[i]));
  for (uint32_t i = 0; i < graph->ropes.size(); ++i) ACORN_TRY(reader.ReadRope(i, &graph->ropes[i]));
  for (uint32_t i = 0; i < graph->caches.size(); ++i) ACORN_TRY(reader.ReadCache(i, &graph->caches[i]));
  for (uint32_t i = 0; i < graph->states.size(); ++i) ACORN_TRY(reader.ReadState(i, &graph->states[i]));
  for (uint32_t i = 0; i < graph->expert_sets.size(); ++i) {
    ExpertSet &set = graph->expert_sets[i];
    ACORN_TRY(reader.ReadExpertSet(i, &set));
    const uint32_t count = set.count * set.slices;
    set.records = records.subspan(0, count);
    records = records.subspan(count, records.size() - count);
    for (uint32_t j = 0; j < count; ++j) ACORN_TRY(reader.ReadExpertRecord(i, j, &set.records[j]));
  }
  for (uint32_t p = 0; p < graph->profiles.size(); ++p) {
    Profile &profile = graph->profiles[p];
    profile.rate = reader.RateOf(p);
    for (uint8_t &slices : profile.slices) slices = 0;
    for (uint32_t i = 0; i < profile.body.size(); ++i) {
      Step &step = profile.body[i];
      ACORN_TRY(reader.ReadStep(BodyOf(p), i, &step));
      if (step.kind != OpKind::kExperts) continue;
      uint8_t &slices = profile.slices[step.experts.set];
      if (step.experts.slices > slices) slices = static_cast<uint8_t>(step.experts.slices);
    }
    FuseSteps(profile.body, fused);
    profile.tail = TailOf(profile.body);
  }
  for (uint32_t i = 0; i < graph->head.size(); ++i) ACORN_TRY(reader.ReadStep(StepList::kHead, i, &graph->head[i]));
  return Status::kOk;
}

bool SameText(const char *a, const char *b) {
  for (; *a == *b; ++a, ++b) {
    if (*a == 0) return true;
  }
  return false;
}

// Row of a step's kernel, made when it is new. When all rows are taken the last one is shared.
uint8_t ProfileRowOf(Model *model, const Step &step) {
  char name[sizeof(ProfileRow::name)] = {};
  const KernelName parts = NameOf(step, model->graph, model->kernels);
  size_t length = 0;
  for (const char *p = parts.family; *p != 0 && length + 2 < sizeof(name); ++p) name[length++] = *p;
  name[length++] = '/';
  for (const char *p = parts.variant; *p != 0 && length + 1 < sizeof(name); ++p) name[length++] = *p;
  for (uint32_t i = 0; i < model->profile_count; ++i) {
    if (SameText(model->profile_rows[i].name, name)) return static_cast<uint8_t>(i);
  }
  if (model->profile_count == kMaxProfileRows) return kMaxProfileRows - 1;
  ProfileRow &row = model->profile_rows[model->profile_count];
  __builtin_memcpy(row.name, name, sizeof(name));
  return static_cast<uint8_t>(model->profile_count++);
}

void PlaceScratch(Model *model) {
  for (uint32_t v = 0; v < model->graph.values.size(); ++v) {
    model->values[v] = {model->scratch + model->scratch_plan.values[v], RowBytes(model->graph.values[v])};
  }
  uint8_t *place = model->scratch + model->scratch_plan.ropes;
  for (uint32_t i = 0; i < model->graph.ropes.size(); ++i) {
    const uint64_t bytes = AlignUp(uint64_t{model->dims.chunk} * (model->graph.ropes[i].rotary_dims / 2) * sizeof(int16_t), 64);
    model->ropes[i] = {reinterpret_cast<int16_t *>(place), reinterpret_cast<int16_t *>(place + bytes)};
    place += 2 * bytes;
  }
  place = model->scratch + model->scratch_plan.bytes;
  for (uint32_t i = 0; i < model->kept_states.size(); ++i) {
    model->kept_states[i] = place;
    place += AlignUp(StateBytes(model->graph.states[i]), Arena::kAlignment);
  }
}

}  // namespace

void LayOutSession(const Graph &graph, const GraphCounts &counts, const Dims &dims, uint64_t text_bytes, Arena *arena,
                   Session **session) {
  const Span<Session> self = arena->Take<Session>(1);
  const Span<int32_t> logits = arena->Take<int32_t>(dims.logit_rows * AlignUp(graph.vocab_size, 16));
  const Span<int32_t> tokens = arena->Take<int32_t>(TokenPlaces(dims));
  const Span<CachePlace> caches = arena->Take<CachePlace>(counts.caches);
  const Span<uint8_t *> states = arena->Take<uint8_t *>(counts.states);
  const Span<char> text = arena->Take<char>(text_bytes);
  if (self.empty()) return;
  *session = self.data();  // NOLINT(clang-analyzer-core.NullDereference): as above
  **session = Session{};
  (*session)->logit_rows = logits;
  (*session)->tokens = tokens;
  (*session)->caches = caches;
  (*session)->states = states;
  (*session)->text = text;
}

Status PlanModel(const OpenRequest &request, Dims *dims, MemoryPlan *plan, Fault *fault) {
  Opening opening;
  const Status status = Prepare(request, &opening);
  *fault = opening.reader.fault();
  fault->status = status;
  *dims = opening.dims;
  *plan = opening.memory;
  return status;
}

Status PlanModelRate(const OpenRequest &request, uint32_t profile, MemoryPlan *plan, RatePlan *rate, Fault *fault) {
  Opening opening;
  Status status = Prepare(request, &opening);
  if (status == Status::kOk) {
    status = profile < opening.counts.profiles ? PlanRate(&opening.reader, opening.counts, profile, rate) : Status::kArgument;
  }
  *fault = opening.reader.fault();
  fault->status = status;
  *plan = opening.memory;
  return status;
}

Status OpenModel(const OpenRequest &request, Span<uint8_t> block, Model **out, Fault *fault) {
  Opening opening;
  const Status status = Prepare(request, &opening);
  *fault = opening.reader.fault();
  fault->status = status;
  if (status != Status::kOk) return status;
  if (block.size() < opening.memory.block_bytes) {
    *fault = {Status::kMemory, "block", 0, opening.memory.block_bytes};
    return Status::kMemory;
  }

  Arena arena(block.data());
  Arena slots(block.data() + opening.memory.block_bytes - opening.memory.expert_slot_bytes);
  Model *model = nullptr;
  ACORN_TRY(LayOutModel(opening.counts, opening.dims, opening.streaming, opening.forecast, &arena, &slots, &model));
  Graph lists = model->graph;  // NOLINT(clang-analyzer-core.NonNullParamChecker): as above
  model->graph = opening.summary;
  model->graph.values = lists.values;
  model->graph.weights = lists.weights;
  model->graph.ropes = lists.ropes;
  model->graph.caches = lists.caches;
  model->graph.states = lists.states;
  model->graph.expert_sets = lists.expert_sets;
  model->graph.profiles = lists.profiles;
  model->graph.body = lists.body;
  model->graph.head = lists.head;
  ACORN_TRY(ReadGraph(&opening, model->expert_records, opening.scratch.fused, &model->graph));
  OpenResidentExperts(&model->resident, &model->graph, request.image, &model->streaming.fault);
  model->file_checksum = LoadLittle64(request.image.data() + kHeaderChecksum);
  model->first_profile = opening.profile;
  model->dials = request.dials;
  if (model->forecast.way != ExpertPrefetch::kOff) {
    OpenForecast(&model->forecast, &model->graph, opening.dims.expert_slots == 0 ? nullptr : &model->streaming);
  }
  model->streaming.graph = &model->graph;
  model->streaming.storage = Storage(request.port, opening.reader.file_bytes());
  model->streaming.clock = request.clock;
  model->streaming.ticks_per_second = request.port.ticks_per_second;
  model->streaming.timeout_ticks = request.port.ticks_per_second * request.read_timeout_ms / 1000;
  model->dims = opening.dims;
  model->memory = opening.memory;
  model->kernels = opening.kernels;
  model->parallel = request.parallel;
  model->parallel.threads = opening.dims.threads;
  model->clock = request.clock;
  model->profile = request.profile;
  model->tokenizer = opening.tokenizer;
  model->scratch_plan = opening.scratch;
  model->extent = ExtentOf(opening.dims, model->graph.prefix_tokens.size());
  for (size_t i = 0; i < model->profile_of_step.size(); ++i) {
    const Step &step = StepOf(model->graph, i);
    if (step.kind == OpKind::kGlu && step.glu.fused) continue;  // its time is the linear layer's
    model->profile_of_step[i] = ProfileRowOf(model, step);
  }
  for (Session *&session : model->sessions) {
    LayOutSession(model->graph, opening.counts, model->dims, TextBytes(model->tokenizer), &arena, &session);
    session->model = model;
    session->stop.clock = model->clock;
    for (uint32_t i = 0; i < model->graph.caches.size(); ++i) {
      const Cache &cache = model->graph.caches[i];
      const uint64_t rows = kv_cache::TokenRowsOf(model->extent, cache.window).all();
      const uint64_t bytes = kv_cache::CacheBytes(rows, cache.kv_heads, cache.head_dim, cache.bits);
      session->caches[i].k = arena.Take<uint8_t>(bytes).data();
      session->caches[i].v = arena.Take<int8_t>(bytes).data();
    }
    for (uint32_t i = 0; i < model->graph.states.size(); ++i) {
      session->states[i] = arena.Take<uint8_t>(StateBytes(model->graph.states[i])).data();
    }
  }
  ResetTrace(model);
  model->scratch = block.data() + arena.used();
  Arena scratch;
  LayOutScratch(opening, &scratch, model);
  PlaceScratch(model);
  *out = model;
  return Status::kOk;
}

}  // namespace acorn
