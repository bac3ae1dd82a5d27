// Every rule of FORMAT.md, section 4, broken one at a time in a file whose checksums are right: refused before anything is
// read through it, with the section and the index of the culprit.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "acorn_schema/acorn_generated.h"
#include "acorn_schema/expert_record.h"
#include "acorn_schema/file.h"
#include "tests/support/model_builder.h"
#include "tests/support/model_session.h"

namespace acorn::test {
namespace {

using schema::Op;

// A sealed file that may be written to.
class Victim {
 public:
  explicit Victim(const ModelSpec &spec) : file_(BuildModel(spec)) {}

  schema::Model *model() { return const_cast<schema::Model *>(schema::GetModel(file_.data() + kHeaderBytes)); }

  // Sets a scalar field that the builder has written.
  template <typename T>
  void Poke(const void *table, flatbuffers::voffset_t field, T value) {
    auto *fields = reinterpret_cast<flatbuffers::Table *>(const_cast<void *>(table));
    ASSERT_NE(fields->GetOptionalFieldOffset(field), 0) << "the field has its default: nothing to overwrite";
    ASSERT_TRUE(fields->SetField<T>(field, value, static_cast<T>(value + 1)));
  }
  // Overwrites a struct.
  template <typename T>
  void Put(const T *place, const T &value) {
    std::memcpy(const_cast<T *>(place), &value, sizeof value);
  }

  const void *Table(Op type, uint32_t which = 0, bool head = false) {
    const auto *steps = head ? model()->head() : model()->body();
    for (const schema::Step *step : *steps) {
      if (step->op_type() == type && which-- == 0) return step->op();
    }
    return nullptr;
  }
  template <typename T>
  const T *Find(Op type, uint32_t which = 0) {
    return static_cast<const T *>(Table(type, which));
  }

  AlignedBytes &Sealed() {
    Reseal(&file_);
    return file_;
  }
  uint8_t *data() { return file_.data(); }
  // The bytes behind a Ref.
  uint8_t *Bytes(const schema::Ref *ref) {
    return file_.data() + model()->segments()->Get(ref->segment())->offset() + ref->offset();
  }

 private:
  AlignedBytes file_;
};

struct Case {
  std::string name;
  const char *section;
  std::function<void(Victim *)> harm;
};

ModelSpec Spec() {
  ModelSpec spec;
  spec.prefix_rows = 1;
  spec.kv_bits = 4;  // written, as 8 would not be
  spec.qk_norm = true;
  spec.layers = 2;
  spec.head_weights = HeadWeights::kOwn;
  return spec;
}

schema::Slice Moved(const schema::Slice *slice, int value, int offset, int width) {
  return schema::Slice(static_cast<uint16_t>(slice->value() + value), slice->offset() + static_cast<uint32_t>(offset),
                       slice->width() + static_cast<uint32_t>(width));
}

const schema::Ref *Elsewhere(const schema::Ref *ref, schema::Ref *storage, int segment, int64_t offset, int64_t bytes) {
  *storage = schema::Ref(static_cast<uint16_t>(ref->segment() + segment), ref->offset() + static_cast<uint64_t>(offset),
                         ref->bytes() + static_cast<uint64_t>(bytes));
  return storage;
}

// A Ref of a step moved: another segment, misplaced, past the end, too short.
template <typename T>
void AddRefCases(std::vector<Case> *cases, const char *name, const char *section, Op type,
                 const schema::Ref *(T::*ref)() const) {
  const auto add = [&](const char *how, int segment, int64_t offset, int64_t bytes) {
    cases->push_back({std::string(name) + ", " + how, section, [=](Victim *victim) {
                        const schema::Ref *place = (victim->Find<T>(type)->*ref)();
                        schema::Ref moved;
                        victim->Put(place, *Elsewhere(place, &moved, segment, offset, bytes));
                      }});
  };
  add("weights segment", 1, 0, 0);
  add("no such segment", 1000, 0, 0);
  add("misplaced", 0, 4, 0);
  add("far away", 0, int64_t{1} << 40, 0);
  add("wraps around", 0, -(int64_t{1} << 62), 0);
  add("short", 0, 0, -1);
  add("long", 0, 0, 1 << 20);
}

// A size that no longer fits shows first at the step that uses it.
std::vector<Case> SegmentAndListCases() {
  return {
      {"segment of no kind", "segment",
       [](Victim *v) { *reinterpret_cast<uint8_t *>(const_cast<schema::Segment *>(v->model()->segments()->Get(1))) = 9; }},
      {"segments overlap", "segment",
       [](Victim *v) {
         const auto *second = v->model()->segments()->Get(1);
         v->Put(second, schema::Segment(second->kind(), v->model()->segments()->Get(0)->offset(), second->bytes(), 0));
       }},
      {"segment not on a page", "segment",
       [](Victim *v) {
         const auto *last = v->model()->segments()->Get(v->model()->segments()->size() - 1);
         v->Put(last, schema::Segment(last->kind(), last->offset() + 64, last->bytes() - 64, 0));
       }},
      {"value of no type", "values",
       [](Victim *v) { *reinterpret_cast<uint8_t *>(const_cast<schema::Value *>(v->model()->values()->Get(2))) = 7; }},
      {"value without width", "values",
       [](Victim *v) { v->Put(v->model()->values()->Get(2), schema::Value(v->model()->values()->Get(2)->dtype(), 0)); }},
      {"value too wide", "values",
       [](Victim *v) { v->Put(v->model()->values()->Get(2), schema::Value(schema::DType::S16, (1u << 20) + 1)); }},
      {"weight of no format", "weights",
       [](Victim *v) { v->Poke<uint8_t>(v->model()->weights()->Get(1), schema::Weight::VT_FORMAT, 77); }},
      {"weight format not of its layout", "weights",
       [](Victim *v) { v->Poke<uint8_t>(v->model()->weights()->Get(1), schema::Weight::VT_FORMAT, 3); }},
      {"weight of no layout", "weights",
       [](Victim *v) { v->Poke<uint8_t>(v->model()->weights()->Get(1), schema::Weight::VT_LAYOUT, 0xee); }},
      {"weight with more channels than bytes", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->model()->weights()->Get(1), schema::Weight::VT_N, 4096); }},
      {"weight of giant size", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->model()->weights()->Get(1), schema::Weight::VT_N, 0xffffffff); }},
      {"panel of odd depth", "weights",
       [](Victim *v) { v->Poke<uint32_t>(v->model()->weights()->Get(1), schema::Weight::VT_K_PANEL, 24); }},
      {"panel deeper than k", "weights",
       [](Victim *v) { v->Poke<uint32_t>(v->model()->weights()->Get(1), schema::Weight::VT_K_PANEL, 1 << 20); }},
      {"odd rotary dims", "ropes",
       [](Victim *v) { v->Poke<uint32_t>(v->model()->ropes()->Get(0), schema::Rope::VT_ROTARY_DIMS, 15); }},
      {"more frequencies than bytes", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->model()->ropes()->Get(0), schema::Rope::VT_ROTARY_DIMS, 500); }},
      {"cache of other heads", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->model()->caches()->Get(1), schema::Cache::VT_KV_HEADS, 3); }},
      {"cache of giant heads", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->model()->caches()->Get(1), schema::Cache::VT_HEAD_DIM, 0x80000000u); }},
      {"cache of odd width", "caches",
       [](Victim *v) { v->Poke<uint8_t>(v->model()->caches()->Get(1), schema::Cache::VT_BITS, 5); }},
      {"cache of no width", "caches",
       [](Victim *v) { v->Poke<uint8_t>(v->model()->caches()->Get(1), schema::Cache::VT_BITS, 0); }},
      {"context past the rows", "model",
       [](Victim *v) { v->Poke<uint32_t>(v->model(), schema::Model::VT_MAX_CONTEXT, 65536); }},
      {"prefix token outside", "model",
       [](Victim *v) { const_cast<flatbuffers::Vector<int32_t> *>(v->model()->prefix_tokens())->Mutate(0, 67); }},
      {"logits of another width", "model", [](Victim *v) { v->Poke<uint32_t>(v->model(), schema::Model::VT_VOCAB_SIZE, 66); }},
      {"logits in no value", "model", [](Victim *v) { v->Poke<uint16_t>(v->model(), schema::Model::VT_LOGITS, 500); }},
  };
}

std::vector<Case> StepCases() {
  std::vector<Case> cases = {
      {"slice outside its value", "body",
       [](Victim *v) {
         const auto *s = v->Find<schema::Linear>(Op::Linear)->input();
         v->Put(s, Moved(s, 0, 1, 0));
       }},
      {"slice that wraps around", "body",
       [](Victim *v) {
         const auto *s = v->Find<schema::Linear>(Op::Linear)->input();
         v->Put(s, Moved(s, 0, -4, 0));
       }},
      {"slice of no value", "body",
       [](Victim *v) {
         const auto *s = v->Find<schema::Linear>(Op::Linear)->input();
         v->Put(s, Moved(s, 999, 0, 0));
       }},
      {"slice of no width", "body",
       [](Victim *v) {
         const auto *s = v->Find<schema::RmsNorm>(Op::RmsNorm)->input();
         v->Put(s, schema::Slice(s->value(), 0, 0));
       }},
      {"output is an input", "body",
       [](Victim *v) {
         const auto *op = v->Find<schema::Add>(Op::Add);
         v->Put(op->out(), *op->a());
       }},
      {"read before it is written", "body",
       [](Victim *v) {
         const auto *op = v->Find<schema::Add>(Op::Add);
         v->Put(op->a(), *v->Find<schema::Add>(Op::Add)->out());
         v->Put(op->out(), *v->Find<schema::Embedding>(Op::Embedding)->out());
       }},
      {"linear with no weight", "body",
       [](Victim *v) { v->Poke<uint16_t>(v->Table(Op::Linear), schema::Linear::VT_WEIGHT, 40); }},
      {"linear with another weight", "body",
       [](Victim *v) { v->Poke<uint16_t>(v->Table(Op::Linear), schema::Linear::VT_WEIGHT, 3); }},
      {"linear with shift 0", "body", [](Victim *v) { v->Poke<uint8_t>(v->Table(Op::Linear), schema::Linear::VT_SHIFT, 0); }},
      {"linear with shift 63", "body", [](Victim *v) { v->Poke<uint8_t>(v->Table(Op::Linear), schema::Linear::VT_SHIFT, 63); }},
      {"bias past s32", "body",
       [](Victim *v) {
         const uint8_t big[4] = {0xff, 0xff, 0xff, 0x7f};
         std::memcpy(v->Bytes(v->Find<schema::Linear>(Op::Linear)->bias()) + 8, big, 4);
       }},
      {"negative multiplier", "body",
       [](Victim *v) { v->Bytes(v->Find<schema::Linear>(Op::Linear)->multipliers())[7] = 0x80; }},
      {"sum past s32", "body",
       [](Victim *v) { v->Poke<uint64_t>(v->model()->weights()->Get(1), schema::Weight::VT_ACC_BOUND, uint64_t{1} << 31); }},
      {"norm in uneven groups", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::RmsNorm), schema::RmsNorm::VT_GROUPS, 7); }},
      {"norm factor too small", "body",
       [](Victim *v) {
         const auto *f = v->Find<schema::RmsNorm>(Op::RmsNorm)->factor();
         v->Put(f, schema::Factor((1 << 30) - 1, f->shift()));
       }},
      {"norm shift too large", "body",
       [](Victim *v) {
         const auto *f = v->Find<schema::RmsNorm>(Op::RmsNorm)->factor();
         v->Put(f, schema::Factor(f->multiplier(), 50));
       }},
      {"norm epsilon too large", "body",
       [](Victim *v) { v->Poke<uint64_t>(v->Table(Op::RmsNorm), schema::RmsNorm::VT_EPS_TERM, uint64_t{1} << 60); }},
      {"zero point past s8", "body",
       [](Victim *v) { v->Poke<int16_t>(v->Table(Op::RmsNorm), schema::RmsNorm::VT_ZERO_POINT, 128); }},
      {"rotation of uneven heads", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::Rotate), schema::Rotate::VT_HEADS, 5); }},
      {"rotation wider than a head", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::Rotate), schema::Rotate::VT_HEADS, 8); }},
      {"append to no cache", "body",
       [](Victim *v) { v->Poke<uint16_t>(v->Table(Op::Append, 1), schema::Append::VT_CACHE, 2); }},
      {"append to another layer's cache", "body",
       [](Victim *v) {
         const auto *op = v->Find<schema::Attention>(Op::Attention, 1);
         v->Poke<uint16_t>(op, schema::Attention::VT_CACHE, 0);
       }},
      {"attention with uneven heads", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::Attention), schema::Attention::VT_HEADS, 3); }},
      {"attention output shift", "body",
       [](Victim *v) { v->Poke<uint8_t>(v->Table(Op::Attention), schema::Attention::VT_OUT_SHIFT, 39); }},
      {"attention multiplier too small", "body",
       [](Victim *v) { v->Bytes(v->Find<schema::Attention>(Op::Attention)->out_multipliers())[3] = 0x20; }},
      {"gate of another width", "body",
       [](Victim *v) {
         const auto *s = v->Find<schema::Glu>(Op::Glu)->gate();
         v->Put(s, Moved(s, 0, 0, -1));
       }},
      {"hadamard of no power of two", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::Hadamard), schema::Hadamard::VT_BLOCK, 24); }},
      {"hadamard block too large", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::Hadamard), schema::Hadamard::VT_BLOCK, 2048); }},
      {"hadamard block not of the width", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::Hadamard), schema::Hadamard::VT_BLOCK, 128); }},
      {"add shift", "body", [](Victim *v) { v->Poke<uint8_t>(v->Table(Op::Add), schema::Add::VT_SHIFT, 0); }},
  };
  AddRefCases(&cases, "linear bias", "body", Op::Linear, &schema::Linear::bias);
  AddRefCases(&cases, "norm gamma", "body", Op::RmsNorm, &schema::RmsNorm::gamma);
  AddRefCases(&cases, "glu table", "body", Op::Glu, &schema::Glu::factor_table);
  AddRefCases(&cases, "append multipliers", "body", Op::Append, &schema::Append::v_multipliers);
  AddRefCases(&cases, "attention multipliers", "body", Op::Attention, &schema::Attention::exp_multipliers);
  AddRefCases(&cases, "embedding multipliers", "body", Op::Embedding, &schema::Embedding::multipliers);
  return cases;
}

void ExpectRefused(const std::vector<Case> &cases, const ModelSpec &spec) {
  for (const Case &harm : cases) {
    Victim victim(spec);
    harm.harm(&victim);
    if (testing::Test::HasFatalFailure()) return;
    ModelSession session(victim.Sealed());
    EXPECT_EQ(session.status(), static_cast<acorn_status>(ACORN_ERR_INVALID)) << harm.name;
    EXPECT_EQ(session.fault().status, session.status()) << harm.name;
    EXPECT_STREQ(session.fault().section, harm.section) << harm.name;
  }
}

TEST(EvilGraph, TheVictimIsHealthyWithoutHarm) {
  Victim victim(Spec());
  EXPECT_EQ(ModelSession(victim.Sealed()).status(), static_cast<acorn_status>(ACORN_OK));
}

TEST(EvilGraph, ListsAndSegments) { ExpectRefused(SegmentAndListCases(), Spec()); }

TEST(EvilGraph, Steps) { ExpectRefused(StepCases(), Spec()); }

TEST(EvilGraph, LayerNorms) {
  ModelSpec spec = Spec();
  spec.norms = Norms::kLayer;
  spec.hidden = 8196;  // in one part, wider than a part may be; the builder leaves the rule to the reader
  spec.layers = 1;
  ModelSession too_wide(BuildModel(spec));
  EXPECT_EQ(too_wide.status(), static_cast<acorn_status>(ACORN_ERR_INVALID));
  Victim parted(spec);
  for (uint32_t i = 0; i < 2; ++i) parted.Poke<uint32_t>(parted.Table(Op::LayerNorm, i), schema::LayerNorm::VT_GROUPS, 2);
  parted.Poke<uint32_t>(parted.Table(Op::LayerNorm, 0, true), schema::LayerNorm::VT_GROUPS, 2);
  EXPECT_EQ(ModelSession(parted.Sealed()).status(), static_cast<acorn_status>(ACORN_OK));

  spec = Spec();
  spec.norms = Norms::kLayer;
  std::vector<Case> cases = {
      {"uneven groups", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::LayerNorm), schema::LayerNorm::VT_GROUPS, 7); }},
      {"shift past 62", "body", [](Victim *v) { v->Poke<uint8_t>(v->Table(Op::LayerNorm), schema::LayerNorm::VT_SHIFT, 63); }},
      {"shift 0", "body", [](Victim *v) { v->Poke<uint8_t>(v->Table(Op::LayerNorm), schema::LayerNorm::VT_SHIFT, 0); }},
      {"epsilon too large", "body",
       [](Victim *v) { v->Poke<uint64_t>(v->Table(Op::LayerNorm), schema::LayerNorm::VT_EPS_TERM, uint64_t{1} << 60); }},
      {"zero point past s8", "body",
       [](Victim *v) { v->Poke<int16_t>(v->Table(Op::LayerNorm), schema::LayerNorm::VT_ZERO_POINT, 128); }},
      {"to another width", "body",
       [](Victim *v) {
         const auto *s = v->Find<schema::LayerNorm>(Op::LayerNorm)->out();
         v->Put(s, Moved(s, 0, 0, -1));
       }},
  };
  AddRefCases(&cases, "layer norm gamma", "body", Op::LayerNorm, &schema::LayerNorm::gamma);
  AddRefCases(&cases, "layer norm bias", "body", Op::LayerNorm, &schema::LayerNorm::bias);
  ExpectRefused(cases, spec);
}

ModelSpec SparseSpec() {
  ModelSpec spec;
  spec.experts = 5;
  spec.expert_weights = {{WeightFormat::kW8, Layout::kX8C8}, {WeightFormat::kW4G32, Layout::kC4}};
  spec.shared_expert = spec.shared_gate = true;
  return spec;
}

const schema::ExpertSet *Set(Victim *v) { return v->model()->expert_sets()->Get(1); }

Case RecordCase(const char *name, const char *section, const std::function<void(uint8_t *record)> &harm) {
  return {name, section, [harm](Victim *v) {
            harm(reinterpret_cast<uint8_t *>(const_cast<schema::ExpertRecord *>(Set(v)->records()->Get(3))));
          }};
}

TEST(EvilGraph, Experts) {
  // Members of a record, in its bytes: offset, checksum, format, down_format, three shifts.
  std::vector<Case> cases = {
      {"set in no segment", "experts", [](Victim *v) { v->Poke<uint16_t>(Set(v), schema::ExpertSet::VT_SEGMENT, 999); }},
      {"set among weights", "experts", [](Victim *v) { v->Poke<uint16_t>(Set(v), schema::ExpertSet::VT_SEGMENT, 1); }},
      {"set without width", "experts", [](Victim *v) { v->Poke<uint32_t>(Set(v), schema::ExpertSet::VT_FFN, 0); }},
      {"set too wide", "experts", [](Victim *v) { v->Poke<uint32_t>(Set(v), schema::ExpertSet::VT_FFN, (1u << 20) + 1); }},
      {"set of giant experts", "expert", [](Victim *v) { v->Poke<uint32_t>(Set(v), schema::ExpertSet::VT_FFN, 1u << 20); }},
      {"set of another width", "body", [](Victim *v) { v->Poke<uint32_t>(Set(v), schema::ExpertSet::VT_HIDDEN, 32); }},
      {"set of no layout", "expert", [](Victim *v) { v->Poke<uint8_t>(Set(v), schema::ExpertSet::VT_LAYOUT, 99); }},
      {"sums past s32", "experts",
       [](Victim *v) { v->Poke<uint64_t>(Set(v), schema::ExpertSet::VT_IN_BOUND, uint64_t{1} << 31); }},
      {"sums of down past s32", "experts",
       [](Victim *v) { v->Poke<uint64_t>(Set(v), schema::ExpertSet::VT_DOWN_BOUND, UINT64_MAX); }},
      RecordCase("record askew", "expert", [](uint8_t *record) { record[0] = 64; }),
      RecordCase("record past the end", "expert", [](uint8_t *record) { record[5] = 1; }),
      RecordCase("record that wraps around", "expert", [](uint8_t *record) { record[7] = 0xff; }),
      RecordCase("record of no format", "expert", [](uint8_t *record) { record[16] = 77; }),
      RecordCase("record of a format deeper than it is", "expert", [](uint8_t *record) { record[17] = 5; }),
      RecordCase("record with shift 0", "experts", [](uint8_t *record) { record[18] = 0; }),
      RecordCase("record with shift 63", "experts", [](uint8_t *record) { record[20] = 63; }),
      {"step of no set", "body", [](Victim *v) { v->Poke<uint16_t>(v->Table(Op::Experts, 1), schema::Experts::VT_SET, 2); }},
      {"nobody chosen", "body", [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::Experts), schema::Experts::VT_TOP_K, 0); }},
      {"more chosen than there are", "body", [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::Experts), schema::Experts::VT_TOP_K, 6); }},
      {"no such scoring", "body", [](Victim *v) { v->Poke<uint8_t>(v->Table(Op::Experts), schema::Experts::VT_SCORING, 5); }},
      {"hadamard of no power of two", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::Experts), schema::Experts::VT_BLOCK, 24); }},
      {"hadamard block not of the width", "body",
       [](Victim *v) { v->Poke<uint32_t>(v->Table(Op::Experts), schema::Experts::VT_BLOCK, 128); }},
      {"glu shift", "body", [](Victim *v) { v->Poke<uint8_t>(v->Table(Op::Experts), schema::Experts::VT_GLU_SHIFT, 0); }},
      {"zero point past s8", "body",
       [](Victim *v) { v->Poke<int16_t>(v->Table(Op::Experts), schema::Experts::VT_DOWN_ZERO_POINT, 128); }},
      {"octaves too many", "body",
       [](Victim *v) {
         const auto *f = v->Find<schema::Experts>(Op::Experts)->octaves();
         v->Put(f, schema::Factor((1 << 30) + 1, f->shift()));
       }},
      {"octaves of the shared gate too many", "body",
       [](Victim *v) {
         const auto *f = v->Find<schema::Experts>(Op::Experts)->shared_octaves();
         v->Put(f, schema::Factor(INT32_MAX, f->shift()));
       }},
      {"logits of fewer experts", "body",
       [](Victim *v) {
         const auto *s = v->Find<schema::Experts>(Op::Experts)->router();
         v->Put(s, Moved(s, 0, 0, -1));
       }},
      {"shared output of another width", "body",
       [](Victim *v) {
         const auto *s = v->Find<schema::Experts>(Op::Experts)->shared();
         v->Put(s, Moved(s, 0, 0, -1));
       }},
      {"experts write what they read", "body",
       [](Victim *v) {
         const auto *op = v->Find<schema::Experts>(Op::Experts);
         v->Put(op->out(), *op->shared());
       }},
  };
  AddRefCases(&cases, "glu table of experts", "body", Op::Experts, &schema::Experts::glu_table);
  ExpectRefused(cases, SparseSpec());
}

ModelSpec StateSpaceSpec() {
  ModelSpec spec;
  spec.mixers = {Mixer::kStateSpace};
  spec.state_groups = 2;
  spec.norm_groups = 4;
  spec.prefix_rows = 1;
  return spec;
}

TEST(EvilGraph, StateSpaces) {
  const auto state = [](Victim *v, uint32_t index) { return v->model()->states()->Get(index); };
  const auto conv = [](Victim *v) { return v->Find<schema::Conv>(Op::Conv); };
  const auto scan = [](Victim *v) { return v->Find<schema::Scan>(Op::Scan); };
  const auto poke32 = [](uint8_t *bytes, uint32_t value) { std::memcpy(bytes, &value, sizeof value); };
  std::vector<Case> cases = {
      {"state of no type", "body",
       [=](Victim *v) { v->Poke<uint8_t>(state(v, 1), schema::State::VT_DTYPE, 1); }},
      {"state without rows", "body", [=](Victim *v) { v->Poke<uint32_t>(state(v, 1), schema::State::VT_ROWS, 0); }},
      {"state too wide", "states", [=](Victim *v) { v->Poke<uint32_t>(state(v, 1), schema::State::VT_COLUMNS, (1u << 20) + 1); }},
      {"state of giant size", "states",
       [=](Victim *v) {
         v->Poke<uint32_t>(state(v, 1), schema::State::VT_ROWS, 1u << 20);
         v->Poke<uint32_t>(state(v, 1), schema::State::VT_COLUMNS, 1u << 20);
       }},
      {"prefix past the state's limit", "states",
       [=](Victim *v) { poke32(v->Bytes(state(v, 1)->prefix()) + 8, 1u << 30); }},
      {"prefix of another size", "states",
       [=](Victim *v) {
         const schema::Ref *prefix = state(v, 1)->prefix();
         schema::Ref moved;
         v->Put(prefix, *Elsewhere(prefix, &moved, 0, 0, -4));
       }},
      {"prefix far away", "states",
       [=](Victim *v) {
         const schema::Ref *prefix = state(v, 0)->prefix();
         schema::Ref moved;
         v->Put(prefix, *Elsewhere(prefix, &moved, 0, int64_t{1} << 40, 0));
       }},
      {"convolution without a state", "body", [=](Victim *v) { v->Poke<uint16_t>(v->Table(Op::Conv, 1), schema::Conv::VT_STATE, 99); }},
      {"two convolutions with one state", "body", [=](Victim *v) { v->Poke<uint16_t>(v->Table(Op::Conv, 1), schema::Conv::VT_STATE, 0); }},
      {"states out of order", "body",
       [=](Victim *v) {
         v->Poke<uint16_t>(v->Table(Op::Scan), schema::Scan::VT_STATE, 3);
         v->Poke<uint16_t>(v->Table(Op::Scan, 1), schema::Scan::VT_STATE, 1);
       }},
      {"convolution with a recurrence's state", "body",
       [=](Victim *v) { v->Poke<uint16_t>(v->Table(Op::Conv, 1), schema::Conv::VT_STATE, 3); }},
      {"one tap", "body", [=](Victim *v) { v->Poke<uint32_t>(conv(v), schema::Conv::VT_TAPS, 1); }},
      {"nine taps", "body", [=](Victim *v) { v->Poke<uint32_t>(conv(v), schema::Conv::VT_TAPS, 9); }},
      {"fewer taps than the state has rows for", "body", [=](Victim *v) { v->Poke<uint32_t>(conv(v), schema::Conv::VT_TAPS, 3); }},
      {"convolution to another width", "body",
       [=](Victim *v) { v->Put(conv(v)->out(), Moved(conv(v)->out(), 0, 0, -1)); }},
      {"convolution's sum past s32", "body",
       [=](Victim *v) { for (int i = 0; i < 4; ++i) poke32(v->Bytes(conv(v)->weights()) + 2 * 96 * i, 0x7fff7fff); }},
      {"convolution's bias past s32", "body", [=](Victim *v) { poke32(v->Bytes(conv(v)->bias()) + 4, 0x80000000u); }},
      {"convolution's negative multiplier", "body", [=](Victim *v) { poke32(v->Bytes(conv(v)->multipliers()), 0x80000000u); }},
      {"convolution's negative index", "body", [=](Victim *v) { poke32(v->Bytes(conv(v)->index_multipliers()), 0xffffffffu); }},
      {"convolution's shift", "body", [=](Victim *v) { v->Poke<uint8_t>(conv(v), schema::Conv::VT_SHIFT, 63); }},
      {"convolution's index shift", "body", [=](Victim *v) { v->Poke<uint8_t>(conv(v), schema::Conv::VT_INDEX_SHIFT, 0); }},
      {"heads that do not divide", "body", [=](Victim *v) { v->Poke<uint32_t>(scan(v), schema::Scan::VT_HEADS, 3); }},
      {"no heads", "body", [=](Victim *v) { v->Poke<uint32_t>(scan(v), schema::Scan::VT_HEADS, 0); }},
      {"no groups", "body", [=](Victim *v) { v->Poke<uint32_t>(scan(v), schema::Scan::VT_GROUPS, 0); }},
      {"groups that do not divide the heads", "body", [=](Victim *v) { v->Poke<uint32_t>(scan(v), schema::Scan::VT_GROUPS, 3); }},
      {"groups of another state", "body", [=](Victim *v) { v->Poke<uint32_t>(scan(v), schema::Scan::VT_GROUPS, 1); }},
      {"fewer step sizes than heads", "body", [=](Victim *v) { v->Put(scan(v)->dt(), Moved(scan(v)->dt(), 0, 0, -1)); }},
      {"B and C of different widths", "body", [=](Victim *v) { v->Put(scan(v)->c(), Moved(scan(v)->c(), 0, 0, -2)); }},
      {"recurrence to another width", "body", [=](Victim *v) { v->Put(scan(v)->out(), Moved(scan(v)->out(), 0, 0, -1)); }},
      {"recurrence without a state", "body", [=](Victim *v) { v->Poke<uint16_t>(v->Table(Op::Scan, 1), schema::Scan::VT_STATE, 4); }},
      {"recurrence writes what it reads", "body", [=](Victim *v) { v->Put(scan(v)->out(), *scan(v)->x()); }},
      {"limits of the step size out of order", "body",
       [=](Victim *v) { v->Poke<uint32_t>(scan(v), schema::Scan::VT_DT_LEAST, (1u << 28) + 1); }},
      {"step size past s32", "body", [=](Victim *v) { v->Poke<uint32_t>(scan(v), schema::Scan::VT_DT_MOST, 1u << 31); }},
      {"step size's shift", "body", [=](Victim *v) { v->Poke<uint8_t>(scan(v), schema::Scan::VT_DT_SHIFT, 63); }},
      {"decay's shift", "body", [=](Victim *v) { v->Poke<uint8_t>(scan(v), schema::Scan::VT_DECAY_SHIFT, 0); }},
      {"input's shift", "body", [=](Victim *v) { v->Poke<uint8_t>(scan(v), schema::Scan::VT_INPUT_SHIFT, 63); }},
      {"output's shift", "body", [=](Victim *v) { v->Bytes(scan(v)->out_shifts())[2] = 63; }},
      {"output without a shift", "body", [=](Victim *v) { v->Bytes(scan(v)->out_shifts())[0] = 0; }},
      {"negative decay", "body", [=](Victim *v) { poke32(v->Bytes(scan(v)->decay_multipliers()) + 4, 0xfffffff0u); }},
      {"skip past 2^46", "body", [=](Victim *v) { poke32(v->Bytes(scan(v)->skip()) + 4, 0x8000); }},
      {"skip past -2^46", "body", [=](Victim *v) { poke32(v->Bytes(scan(v)->skip()) + 4, 0x80000000u); }},
  };
  AddRefCases(&cases, "convolution's weights", "body", Op::Conv, &schema::Conv::weights);
  AddRefCases(&cases, "convolution's bias", "body", Op::Conv, &schema::Conv::bias);
  AddRefCases(&cases, "convolution's multipliers", "body", Op::Conv, &schema::Conv::multipliers);
  AddRefCases(&cases, "convolution's indices", "body", Op::Conv, &schema::Conv::index_multipliers);
  AddRefCases(&cases, "convolution's table", "body", Op::Conv, &schema::Conv::factor_table);
  AddRefCases(&cases, "step multipliers", "body", Op::Scan, &schema::Scan::dt_multipliers);
  AddRefCases(&cases, "step biases", "body", Op::Scan, &schema::Scan::dt_bias);
  AddRefCases(&cases, "softplus table", "body", Op::Scan, &schema::Scan::softplus_table);
  AddRefCases(&cases, "decays", "body", Op::Scan, &schema::Scan::decay_multipliers);
  AddRefCases(&cases, "inputs", "body", Op::Scan, &schema::Scan::input_multipliers);
  AddRefCases(&cases, "skips", "body", Op::Scan, &schema::Scan::skip);
  AddRefCases(&cases, "output shifts", "body", Op::Scan, &schema::Scan::out_shifts);
  ExpectRefused(cases, StateSpaceSpec());
  Victim victim(StateSpaceSpec());
  EXPECT_EQ(ModelSession(victim.Sealed()).status(), static_cast<acorn_status>(ACORN_OK));
}

ModelSpec ProfileSpec() {
  ModelSpec spec;
  spec.linear = {WeightFormat::kW4G32, Layout::kC4};
  spec.widened = spec.sorted_pairs = true;
  spec.mixers = {Mixer::kAttention, Mixer::kStateSpace};
  spec.kv_bits = 4;  // written, as 8 would not be
  spec.v_dim = 12;
  spec.attention_run = 6;
  spec.scan_run = 4;
  return spec;
}

TEST(EvilGraph, Profiles) {
  const auto linear = [](Victim *v) { return v->Find<schema::Linear>(Op::Linear); };
  const auto rotate = [](Victim *v) { return v->Find<schema::Rotate>(Op::Rotate); };
  const auto append = [](Victim *v) { return v->Find<schema::Append>(Op::Append); };
  const auto attention = [](Victim *v) { return v->Find<schema::Attention>(Op::Attention); };
  const auto conv = [](Victim *v) { return v->Find<schema::Conv>(Op::Conv); };
  const auto scan = [](Victim *v) { return v->Find<schema::Scan>(Op::Scan); };
  const auto cache = [](Victim *v) { return v->model()->caches()->Get(0); };
  const auto with_run = [](const char *name, const auto &runs, const std::function<void(uint32_t *, uint32_t *)> &change) {
    return Case{name, "body", [=](Victim *v) {
                  const schema::Run *run = runs(v)->Get(1);
                  uint32_t first = run->first(), count = run->count();
                  change(&first, &count);
                  v->Put(run, schema::Run(first, count));
                }};
  };
  const auto rows = [=](Victim *v) { return linear(v)->rows(); };
  const auto columns = [=](Victim *v) { return conv(v)->columns(); };
  std::vector<Case> cases = {
      with_run("rows past the last", rows, [](uint32_t *first, uint32_t *) { *first = 4096; }),
      with_run("rows that wrap around", rows, [](uint32_t *first, uint32_t *) { *first = 0xfffffff0u; }),
      with_run("rows askew", rows, [](uint32_t *first, uint32_t *) { *first -= 8; }),
      with_run("fewer rows than columns of the output", rows, [](uint32_t *, uint32_t *count) { --*count; }),
      with_run("more rows than columns of the output", rows, [](uint32_t *, uint32_t *count) { ++*count; }),
      with_run("a run of no rows", rows, [](uint32_t *, uint32_t *count) { *count = 0; }),
      with_run("a run of too many rows", rows, [](uint32_t *, uint32_t *count) { *count = 0xffffffffu; }),
      with_run("columns past the last", columns, [](uint32_t *first, uint32_t *) { *first = 4096; }),
      with_run("fewer columns than the input has", columns, [](uint32_t *, uint32_t *count) { --*count; }),
      with_run("a run of no columns", columns, [](uint32_t *, uint32_t *count) { *count = 0; }),
      {"input of a part of a group", "body", [=](Victim *v) { v->Put(linear(v)->input(), Moved(linear(v)->input(), 0, 0, -1)); }},
      {"input wider than the weight", "body",
       [=](Victim *v) { v->Poke<uint32_t>(v->model()->weights()->Get(linear(v)->weight()), schema::Weight::VT_K, 32); }},
      {"input narrower than a weight of no format", "body",
       [=](Victim *v) {
         const auto *weight = v->model()->weights()->Get(linear(v)->weight());
         v->Poke<uint8_t>(weight, schema::Weight::VT_FORMAT, 77);
         v->Poke<uint32_t>(weight, schema::Weight::VT_K_PANEL, 0);
       }},
      {"pair of no frequency", "body", [=](Victim *v) { v->Bytes(rotate(v)->pairs())[3] = 8; }},
      {"pairs of half a block", "body", [=](Victim *v) { v->Poke<uint32_t>(rotate(v), schema::Rotate::VT_HEADS, 8); }},
      {"keys wider than their cache", "body", [=](Victim *v) { v->Poke<uint32_t>(cache(v), schema::Cache::VT_HEAD_DIM, 12); }},
      {"values wider than their cache", "body", [=](Victim *v) { v->Poke<uint32_t>(cache(v), schema::Cache::VT_HEAD_DIM, 10); }},
      {"keys of half a dimension", "body", [=](Victim *v) { v->Put(append(v)->k(), Moved(append(v)->k(), 0, 0, -1)); }},
      {"keys of an odd width", "body", [=](Victim *v) { v->Put(append(v)->k(), Moved(append(v)->k(), 0, 0, -2)); }},
      {"values of an odd width", "body", [=](Victim *v) { v->Put(append(v)->v(), Moved(append(v)->v(), 0, 0, -2)); }},
      {"fewer keys written than read", "body", [=](Victim *v) { v->Put(append(v)->k(), Moved(append(v)->k(), 0, 0, -4)); }},
      {"fewer values written than read", "body", [=](Victim *v) { v->Put(append(v)->v(), Moved(append(v)->v(), 0, 0, -4)); }},
      {"queries of half a dimension", "body", [=](Victim *v) { v->Put(attention(v)->q(), Moved(attention(v)->q(), 0, 0, -2)); }},
      {"queries of an odd width", "body", [=](Victim *v) { v->Put(attention(v)->q(), Moved(attention(v)->q(), 0, 0, -4)); }},
      {"more values than the cache has", "body",
       [=](Victim *v) { v->Poke<uint32_t>(attention(v), schema::Attention::VT_V_DIM, 36); }},
      {"more values than were written", "body",
       [=](Victim *v) {
         v->Poke<uint32_t>(attention(v), schema::Attention::VT_V_DIM, 14);
         v->Poke<uint8_t>(attention(v), schema::Attention::VT_RUN, 2);
       }},
      {"giant values", "body", [=](Victim *v) { v->Poke<uint32_t>(attention(v), schema::Attention::VT_V_DIM, 0xfffffffeu); }},
      {"a run that does not divide the values", "body",
       [=](Victim *v) { v->Poke<uint8_t>(attention(v), schema::Attention::VT_RUN, 5); }},
      {"a run of more than there are", "body", [=](Victim *v) { v->Poke<uint8_t>(attention(v), schema::Attention::VT_RUN, 24); }},
      {"output too narrow for the heads", "body",
       [=](Victim *v) { v->Put(attention(v)->out(), Moved(attention(v)->out(), 0, 0, -17)); }},
      {"a run that does not divide the channels", "body", [=](Victim *v) { v->Poke<uint8_t>(scan(v), schema::Scan::VT_RUN, 3); }},
      {"more channels than the state has", "body",
       [=](Victim *v) { v->Poke<uint32_t>(v->model()->states()->Get(1), schema::State::VT_ROWS, 28); }},
      {"a state of half a row a head", "body",
       [=](Victim *v) { v->Poke<uint32_t>(v->model()->states()->Get(1), schema::State::VT_ROWS, 42); }},
      {"fewer state columns than B has", "body",
       [=](Victim *v) { v->Poke<uint32_t>(v->model()->states()->Get(1), schema::State::VT_COLUMNS, 15); }},
  };
  AddRefCases(&cases, "pairs", "body", Op::Rotate, &schema::Rotate::pairs);
  ExpectRefused(cases, ProfileSpec());
  Victim victim(ProfileSpec());
  EXPECT_EQ(ModelSession(victim.Sealed()).status(), static_cast<acorn_status>(ACORN_OK));
}

TEST(EvilGraph, PartsOfPanels) {
  ModelSpec spec;
  spec.linear = {WeightFormat::kW8, Layout::kX16C8, 32};
  spec.widened = true;
  const auto input = [](Victim *v) { return v->Find<schema::Linear>(Op::Linear)->input(); };
  ExpectRefused({{"input of a part of a panel", "body", [=](Victim *v) { v->Put(input(v), Moved(input(v), 0, 0, -16)); }}}, spec);
  Victim victim(spec);
  EXPECT_EQ(ModelSession(victim.Sealed()).status(), static_cast<acorn_status>(ACORN_OK));
}

// What a record holds is met when it is first used.
TEST(EvilGraph, ContentOfExperts) {
  const ModelSpec spec = SparseSpec();
  const std::vector<int32_t> tokens = {3, 1, 4, 15, 9, 2, 6, 5, 35, 8, 9, 7, 9, 32, 38, 46};
  const auto harm = [&](bool seal, const std::function<void(uint8_t *record, const expert::Shape &shape)> &change) {
    Victim victim(spec);
    for (const schema::ExpertSet *set : *victim.model()->expert_sets()) {
      for (const schema::ExpertRecord *entry : *set->records()) {
        const expert::Shape shape = {set->hidden(), set->ffn(), static_cast<WeightFormat>(entry->format()),
                                     static_cast<WeightFormat>(entry->down_format()), static_cast<Layout>(set->layout())};
        uint8_t *record = victim.data() + victim.model()->segments()->Get(set->segment())->offset() + entry->offset();
        change(record, shape);
        const uint64_t checksum = RecordChecksum(record, expert::RecordBytes(shape));
        if (seal) std::memcpy(reinterpret_cast<uint8_t *>(const_cast<schema::ExpertRecord *>(entry)) + 8, &checksum, 8);
      }
    }
    return victim.Sealed();
  };
  const auto status_of = [&](const AlignedBytes &file) {
    ModelSession session(file);
    EXPECT_EQ(session.status(), static_cast<acorn_status>(ACORN_OK));  // opening reads no record
    session.Score(tokens);
    acorn_options options = {};
    options.flags = ACORN_OPEN_CHECK_WEIGHTS;
    const ModelSession checked(file, options);
    EXPECT_EQ(checked.status(), session.status());
    if (checked.status() != ACORN_OK) {
      EXPECT_STREQ(checked.fault().section, "expert");
    }
    return session.status();
  };
  const auto nothing = [](uint8_t *, const expert::Shape &) {};
  EXPECT_EQ(status_of(harm(true, nothing)), static_cast<acorn_status>(ACORN_OK));
  EXPECT_EQ(status_of(harm(false, [](uint8_t *record, const expert::Shape &) { record[100] ^= 1; })),
            static_cast<acorn_status>(ACORN_ERR_DAMAGED));
  for (size_t part = 0; part < expert::kParts; ++part) {
    EXPECT_EQ(status_of(harm(true,
                             [&](uint8_t *record, const expert::Shape &shape) {
                               const uint8_t big[4] = {0xff, 0xff, 0xff, 0x7f};
                               std::memcpy(record + expert::PlaceOf(shape, part).bias, big, 4);
                             })),
              static_cast<acorn_status>(ACORN_ERR_INVALID));
    EXPECT_EQ(status_of(harm(true,
                             [&](uint8_t *record, const expert::Shape &shape) {
                               record[expert::PlaceOf(shape, part).multipliers + 7] = 0x80;
                             })),
              static_cast<acorn_status>(ACORN_ERR_INVALID));
  }
}

TEST(EvilGraph, AnUnknownOperatorIsUnsupported) {
  Victim victim(Spec());
  victim.Poke<uint8_t>(victim.model()->body()->Get(3), schema::Step::VT_OP_TYPE, 200);
  ModelSession session(victim.Sealed());
  // Its table cannot be verified, so the verifier or the reader may be the one to refuse it.
  EXPECT_TRUE(session.status() == ACORN_ERR_UNSUPPORTED || session.status() == ACORN_ERR_INVALID);
}

TEST(EvilGraph, AWideSumOfTwoRowsIsRefused) {
  ModelSpec spec = Spec();
  spec.hadamard_block = 1;
  spec.ffn = 80;
  const auto bound_of = [&](uint64_t bound) {
    Victim victim(spec);
    const auto *down = victim.Find<schema::Linear>(Op::Linear, 3);
    victim.Poke<uint64_t>(victim.model()->weights()->Get(down->weight()), schema::Weight::VT_ACC_BOUND, bound);
    return ModelSession(victim.Sealed()).status();
  };
  EXPECT_EQ(bound_of(uint64_t{1} << 38), static_cast<acorn_status>(ACORN_ERR_INVALID));
}

}  // namespace
}  // namespace acorn::test
