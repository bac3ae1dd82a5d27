// The graph as a FlatBuffer: offsets, lengths and tables that a writer would never make. What the verifier lets pass is legal as a
// buffer, and the rules of the model have to stop it.
#include <algorithm>
#include <set>

#include "tests/evil/evil_file.h"
#include "tests/evil/shared_graph.h"

namespace acorn::test {
namespace {

using schema::Model;

const std::vector<WeightKind> kExpertWeights = {{WeightFormat::kW4G32, Layout::kC4}};

const Verdict kNoGraph = {ACORN_ERR_INVALID, "graph", 0, kHeaderBytes};

// The bytes of a file's graph by the fields of its tables. Places are offsets in the file.
class RawGraph {
 public:
  explicit RawGraph(Bytes *file) : file_(*file) {}

  uint64_t At(uint64_t place) const { return place + LoadLittle32(file_.data() + place); }
  uint64_t Root() const { return At(kHeaderBytes); }
  uint64_t Vtable(uint64_t table) const {
    return table - static_cast<uint64_t>(static_cast<int32_t>(LoadLittle32(file_.data() + table)));
  }
  // Of a field that the table has.
  uint64_t Field(uint64_t table, uint64_t field) const {
    const uint64_t entry = Vtable(table) + field;
    return table + (file_[entry] | uint64_t{file_[entry + 1]} << 8);
  }
  uint64_t Vector(uint64_t table, uint64_t field) const { return At(Field(table, field)); }
  uint64_t Table(uint64_t vector, uint64_t index) const { return At(vector + 4 + 4 * index); }

  // A copy of a vector behind the graph, its elements `askew` bytes off a multiple of 8.
  void Move(uint64_t table, uint64_t field, uint64_t element_bytes, uint64_t askew) {
    const uint64_t from = Vector(table, field), bytes = 4 + element_bytes * LoadLittle32(file_.data() + from);
    const uint64_t end = kHeaderBytes + LoadLittle64(file_.data() + kHeaderGraphBytes);
    const uint64_t to = (end + 7) / 8 * 8 + 4 + askew;
    std::copy_n(file_.begin() + static_cast<int64_t>(from), bytes, file_.begin() + static_cast<int64_t>(to));
    Put(&file_, Field(table, field), to - Field(table, field), 4);
    Put(&file_, kHeaderGraphBytes, to + bytes - kHeaderBytes, 8);
  }

 private:
  Bytes &file_;
};

ModelSpec Spec() {
  ModelSpec spec;
  spec.name = "dense";
  spec.prefix_rows = 1;
  return spec;
}

using Harm = std::function<void(Bytes *, RawGraph *)>;

struct Case {
  std::string name;
  Verdict verdict;
  Harm harm;
};

void ExpectAllRefused(const Bytes &file, const std::vector<Case> &cases) {
  for (const Case &row : cases) {
    Bytes bad = file;
    RawGraph graph(&bad);
    row.harm(&bad, &graph);
    SealGraph(&bad);
    ExpectRefused(row.name, bad, row.verdict);
  }
}

// CVE-2025-54949, CVE-2025-30402, GHSA-xc7w-r669-48pf and executorch's pull request 22118: offsets in the buffer were believed.
TEST(EvilBuffer, Root) {
  const AlignedBytes file = BuildModel(Spec());
  ExpectOpens("unharmed", file);
  const uint64_t graph_bytes = LoadLittle64(file.data() + kHeaderGraphBytes);
  const auto root = [](const char *name, uint64_t value) {
    return Case{name, kNoGraph, [=](Bytes *bytes, RawGraph *) { Put(bytes, kHeaderBytes, value, 4); }};
  };
  ExpectAllRefused(BytesOf(file), {
      root("root at itself", 0),
      root("root in its identifier", 4),
      root("root at the end", graph_bytes),
      root("root a byte before the end", graph_bytes - 1),
      root("root behind the end", graph_bytes + 64),
      root("root at 2^31 - 1", INT32_MAX),
      root("root at 2^31", uint64_t{1} << 31),
      root("root at 2^32 - 1", UINT32_MAX),
      {"root askew", kNoGraph, [](Bytes *b, RawGraph *) { Put(b, kHeaderBytes, LoadLittle32(b->data() + kHeaderBytes) + 1, 4); }},
      {"another schema's identifier", kNoGraph, [](Bytes *b, RawGraph *) { Put(b, kHeaderBytes + 4, 0x334c4654, 4); }},
      {"no identifier", kNoGraph, [](Bytes *b, RawGraph *) { Put(b, kHeaderBytes + 4, 0, 4); }},
  });
}

TEST(EvilBuffer, Vtables) {
  const auto vtable_at = [](const char *name, int64_t distance) {
    return Case{name, kNoGraph, [=](Bytes *b, RawGraph *g) { Put(b, g->Root(), static_cast<uint32_t>(distance), 4); }};
  };
  const auto entry = [](const char *name, uint64_t at, uint64_t value) {
    return Case{name, kNoGraph, [=](Bytes *b, RawGraph *g) { Put(b, g->Vtable(g->Root()) + at, value, 2); }};
  };
  ExpectAllRefused(BytesOf(BuildModel(Spec())), {
      {"vtable of no length", {ACORN_ERR_INVALID, "segment"}, [](Bytes *b, RawGraph *g) { Put(b, g->Vtable(g->Root()), 0, 2); }},
      vtable_at("vtable far before the graph", INT32_MAX),
      vtable_at("vtable far behind the graph", INT32_MIN),
      vtable_at("vtable just behind the graph", -(1 << 20)),
      {"vtable askew", kNoGraph, [](Bytes *b, RawGraph *g) { Put(b, g->Root(), LoadLittle32(b->data() + g->Root()) + 1, 4); }},
      {"vtable in the middle of the header", kNoGraph, [](Bytes *b, RawGraph *g) { Put(b, g->Root(), g->Root() - 32, 4); }},
      entry("vtable of an odd length", 0, 5),
      entry("vtable of 65,535 bytes", 0, 65535),
      entry("vtable of 65,534 bytes", 0, 65534),
      entry("a vector's field at its table's end", Model::VT_SEGMENTS, 65532),
      entry("a struct's field at its table's end", Model::VT_LOGIT_FACTOR, 65528),
      entry("a number's field askew", Model::VT_VOCAB_SIZE, 5),
  });
}

// CVE-2024-21802, -21825, -21836, -23496, -23605: n_tensors, n_kv, lengths of strings and arrays as the file gives them.
// CVE-2025-54950, -54951: the like in a FlatBuffer.
TEST(EvilBuffer, Lengths) {
  struct Vector {
    const char *name;
    uint64_t field;
  };
  const std::vector<Vector> vectors = {
      {"name", Model::VT_NAME},       {"family", Model::VT_FAMILY},   {"prefix tokens", Model::VT_PREFIX_TOKENS},
      {"segments", Model::VT_SEGMENTS}, {"values", Model::VT_VALUES}, {"weights", Model::VT_WEIGHTS},
      {"ropes", Model::VT_ROPES},     {"caches", Model::VT_CACHES},   {"body", Model::VT_BODY},
      {"head", Model::VT_HEAD},       {"expert sets", Model::VT_EXPERT_SETS},
  };
  ModelSpec spec = Spec();
  spec.experts = 3;
  spec.expert_weights = kExpertWeights;
  std::vector<Case> cases;
  for (const Vector &vector : vectors) {
    for (const uint64_t length : {1u << 24, 1u << 29, uint32_t{INT32_MAX}, 1u << 31, UINT32_MAX}) {
      cases.push_back({std::to_string(length) + " elements in " + vector.name, kNoGraph, [=](Bytes *b, RawGraph *g) {
                         Put(b, g->Vector(g->Root(), vector.field), length, 4);
                       }});
    }
    for (const uint64_t offset : {uint64_t{0}, uint64_t{INT32_MAX}, uint64_t{1} << 31, uint64_t{UINT32_MAX}}) {
      cases.push_back({std::string(vector.name) + " at " + std::to_string(offset), kNoGraph, [=](Bytes *b, RawGraph *g) {
                         Put(b, g->Field(g->Root(), vector.field), offset, 4);
                       }});
    }
  }
  cases.push_back({"records without end", kNoGraph, [](Bytes *b, RawGraph *g) {
                     const uint64_t set = g->Table(g->Vector(g->Root(), Model::VT_EXPERT_SETS), 0);
                     Put(b, g->Vector(set, schema::ExpertSet::VT_RECORDS), uint64_t{1} << 27, 4);
                   }});
  ExpectAllRefused(BytesOf(BuildModel(spec)), cases);
}

// Tables that refer to themselves or to others' places.
TEST(EvilBuffer, Cycles) {
  const auto step = [](RawGraph *g, uint64_t index) { return g->Vector(g->Root(), Model::VT_BODY) + 4 + 4 * index; };
  ExpectAllRefused(BytesOf(BuildModel(Spec())), {
      {"a step that is its own place", {ACORN_ERR_INVALID, "body", 3}, [=](Bytes *b, RawGraph *g) { Put(b, step(g, 3), 0, 4); }},
      {"a step before the graph", kNoGraph, [=](Bytes *b, RawGraph *g) { Put(b, step(g, 3), 0 - step(g, 3), 4); }},
      {"an operator that is its own place", kNoGraph,
       [=](Bytes *b, RawGraph *g) { Put(b, g->Field(g->At(step(g, 3)), schema::Step::VT_OP), 0, 4); }},
      {"an operator behind the graph", kNoGraph,
       [=](Bytes *b, RawGraph *g) { Put(b, g->Field(g->At(step(g, 3)), schema::Step::VT_OP), 1 << 20, 4); }},
      {"an operator of the next member of the union", {ACORN_ERR_UNSUPPORTED, "body", 3, 14},
       [=](Bytes *b, RawGraph *g) { Put(b, g->Field(g->At(step(g, 3)), schema::Step::VT_OP_TYPE), 14, 1); }},
      {"an operator of number 255", {ACORN_ERR_UNSUPPORTED, "body", 3, 255},
       [=](Bytes *b, RawGraph *g) { Put(b, g->Field(g->At(step(g, 3)), schema::Step::VT_OP_TYPE), 255, 1); }},
      {"weights that are the values", kNoGraph,
       [](Bytes *b, RawGraph *g) {
         const uint64_t weights = g->Field(g->Root(), Model::VT_WEIGHTS);
         Put(b, weights, g->Vector(g->Root(), Model::VT_VALUES) - weights, 4);
       }},
  });
}

// FlatBuffers' verifier checks where a vector's length lies, not its elements.
TEST(EvilBuffer, VectorsAskew) {
  ModelSpec sparse = Spec();
  sparse.experts = 3;
  sparse.expert_weights = kExpertWeights;
  const Bytes file = BytesOf(Recorded(BuildModel(sparse)));
  ExpectOpens("unharmed", AlignedBytes(file));
  const auto segments = [](uint64_t askew) {
    return [=](Bytes *, RawGraph *g) { g->Move(g->Root(), Model::VT_SEGMENTS, sizeof(schema::Segment), askew); };
  };
  const auto records = [](uint64_t askew) {
    return [=](Bytes *, RawGraph *g) {
      const uint64_t set = g->Table(g->Vector(g->Root(), Model::VT_EXPERT_SETS), 1);
      g->Move(set, schema::ExpertSet::VT_RECORDS, sizeof(schema::ExpertRecord), askew);
    };
  };
  const auto digests = [](uint64_t field, uint64_t askew) {
    return [=](Bytes *, RawGraph *g) { g->Move(g->At(g->Field(g->Root(), Model::VT_REFERENCE_RUN)), field, 8, askew); };
  };
  using Run = schema::ReferenceRun;
  ExpectAllRefused(file, {
      {"segments at 4 modulo 8", {ACORN_ERR_INVALID, "segment"}, segments(4)},
      {"segments at 2 modulo 4", kNoGraph, segments(2)},
      {"records at 4 modulo 8", {ACORN_ERR_INVALID, "experts", 1}, records(4)},
      {"records at 1 modulo 4", kNoGraph, records(1)},
      {"prefill digests at 4 modulo 8", {ACORN_ERR_INVALID, "reference"}, digests(Run::VT_PREFILL, 4)},
      {"decode digests at 4 modulo 8", {ACORN_ERR_INVALID, "reference"}, digests(Run::VT_DECODE, 4)},
      {"prefill digests at 2 modulo 4", kNoGraph, digests(Run::VT_PREFILL, 2)},
  });
  for (const Harm &move : {Harm(segments(0)), Harm(records(0)), Harm(digests(Run::VT_PREFILL, 0))}) {  // it is the place alone
    Bytes moved = file;
    RawGraph graph(&moved);
    move(&moved, &graph);
    SealGraph(&moved);
    ExpectOpens("moved", AlignedBytes(moved));
  }
}

// ggml's issue 1516: 160 bytes that ask for gigabytes. CVE-2020-15213: an output as long as the largest number in the input. One
// table may stand in many places of a list, and one array be many steps': the work of checking them stays in proportion to the file.
TEST(EvilBuffer, Bombs) {
  const AlignedBytes file = BuildModel(Spec());
  const schema::ModelT model = *GraphOf(file);
  const size_t linear = IndexOf(model.body, schema::Op::Linear);
  const auto repeated = [](const schema::StepT &step) {
    return [&step](flatbuffers::FlatBufferBuilder *fbb, Shared *parts) {
      parts->body.assign(parts->repeats, schema::Step::Pack(*fbb, &step));
    };
  };
  {
    Shared bomb;
    bomb.repeats = 40000;
    bomb.change = repeated(*model.body[linear]);
    ExpectRefused("40,000 steps that are one", BytesOf(WithSharedGraph(file, model, bomb)), kNoGraph);
    bomb.repeats = 140000;
    ExpectRefused("140,000 steps that are one", BytesOf(WithSharedGraph(file, model, bomb)), kNoGraph);
  }
  {
    Shared bomb;
    bomb.change = [&](flatbuffers::FlatBufferBuilder *fbb, Shared *parts) {
      parts->weights.assign(270000, schema::Weight::Pack(*fbb, model.weights[0].get()));
    };
    ExpectRefused("270,000 weights that are one", BytesOf(WithSharedGraph(file, model, bomb)), kNoGraph);
  }
  // A cache for each of 60,000 layers that there are not: legal, and more memory than there is.
  {
    Shared bomb;
    bomb.change = [&](flatbuffers::FlatBufferBuilder *fbb, Shared *parts) {
      schema::CacheT cache;
      cache.kv_heads = 2048;
      cache.head_dim = 512;
      parts->caches.insert(parts->caches.end(), 60000, schema::Cache::Pack(*fbb, &cache));
    };
    schema::ModelT bare = *GraphOf(BuildModel(ModelSpec()));
    bare.max_context = 65536;
    const Bytes bytes = BytesOf(WithSharedGraph(BuildModel(ModelSpec()), bare, bomb));
    const ExactImage image(bytes);
    acorn_memory_plan plan = {};
    plan.struct_size = sizeof plan;
    acorn_fault fault = {};
    fault.struct_size = sizeof fault;
    const acorn_image view = image.get();
    ASSERT_EQ(acorn_plan(&plan, &fault, &view, nullptr, nullptr), static_cast<acorn_status>(ACORN_OK));
    EXPECT_GT(plan.block_bytes, uint64_t{1} << 52);
    AlignedBytes block(Bytes(1 << 16, 0xa5));
    acorn_model *opened = nullptr;
    EXPECT_EQ(acorn_model_open(&opened, &fault, &view, nullptr, nullptr, block.data(), block.size()),
              static_cast<acorn_status>(ACORN_ERR_MEMORY));
    EXPECT_STREQ(fault.section, "block");
    EXPECT_EQ(fault.offset, plan.block_bytes);
    EXPECT_EQ(BytesOf(block), Bytes(1 << 16, 0xa5));
  }
}

TEST(EvilBuffer, ExpertBombs) {
  ModelSpec spec;
  spec.name = "sparse";
  spec.experts = 4;
  spec.expert_weights = kExpertWeights;
  const AlignedBytes file = BuildModel(spec);
  const schema::ModelT model = *GraphOf(file);
  const auto sets = [&](size_t count, size_t records) {
    Shared bomb;
    bomb.change = [&model, count, records](flatbuffers::FlatBufferBuilder *fbb, Shared *parts) {
      schema::ExpertSetT set = *model.expert_sets[0];
      set.records.resize(records, set.records[0]);
      parts->expert_sets.insert(parts->expert_sets.end(), count, schema::ExpertSet::Pack(*fbb, &set));
    };
    return BytesOf(WithSharedGraph(file, model, bomb));
  };
  ExpectRefused("more experts than a set may have", sets(1, 1025), {ACORN_ERR_INVALID, "experts", 2});
  // More than 2^24 experts in all, which have no keys: 16,383 + 2 sets.
  ExpectRefused("more experts than there are keys", sets(16383, 1024), {ACORN_ERR_INVALID, "experts", 2});
  ExpectRefused("sixteen million experts that are one", sets(16000, 1024), kNoGraph);
}

}  // namespace
}  // namespace acorn::test
