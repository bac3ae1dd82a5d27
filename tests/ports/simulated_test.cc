// The simulated device: exact times, and every fault on order and by chance.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "acorn_posix.h"
#include "acorn_simulated.h"
#include "tests/support/temp_folder.h"

namespace acorn {
namespace {

constexpr size_t kPage = 4096;
constexpr uint64_t kFor = UINT64_MAX;

// A nanosecond for a byte; a page takes 114,096 ns alone.
constexpr acorn_device_timing kTiming = {100000, 10000, 1000000000, 2};

TEST(Device, OneReadAfterTheOther) {
  acorn_device device;
  ASSERT_EQ(acorn_device_init(&device, &kTiming), 0);
  EXPECT_EQ(acorn_device_read(&device, 0, 4096).finish, 114096u);
  const acorn_device_times later = acorn_device_read(&device, 200000, 1);
  EXPECT_EQ(later.start, 200000u);
  EXPECT_EQ(later.finish, 310001u);
}

TEST(Device, LatenciesOverlapAndTransfersDoNot) {
  acorn_device device;
  ASSERT_EQ(acorn_device_init(&device, &kTiming), 0);
  EXPECT_EQ(acorn_device_read(&device, 0, 4096).finish, 114096u);
  EXPECT_EQ(acorn_device_read(&device, 0, 4096).finish, 128192u);
  const acorn_device_times third = acorn_device_read(&device, 0, 4096);  // both places are taken
  EXPECT_EQ(third.start, 114096u);
  EXPECT_EQ(third.finish, 228192u);
  EXPECT_EQ(acorn_device_read(&device, 0, 4096).finish, 128192u + 100000 + 14096);
}

TEST(Device, TransfersAreRoundedUpAndDoNotOverflow) {
  acorn_device device;
  const acorn_device_timing slow = {0, 0, 1000, 1}, fast = {0, 0, uint64_t{1} << 45, 1}, odd = {0, 0, 3000000000, 1};
  ASSERT_EQ(acorn_device_init(&device, &slow), 0);
  EXPECT_EQ(acorn_device_read(&device, 0, uint64_t{1} << 40).finish, (uint64_t{1} << 40) * 1000000);
  ASSERT_EQ(acorn_device_init(&device, &fast), 0);
  EXPECT_EQ(acorn_device_read(&device, 0, uint64_t{1} << 40).finish, 31250000u);
  ASSERT_EQ(acorn_device_init(&device, &odd), 0);
  EXPECT_EQ(acorn_device_read(&device, 0, 1).finish, 1u);
  EXPECT_EQ(acorn_device_read(&device, 10, 3000000001).finish, 1000000011u);
}

TEST(Device, RangesAreChecked) {
  acorn_device device;
  acorn_device_timing bad[] = {kTiming, kTiming, kTiming, kTiming, kTiming};
  bad[0].depth = 0;
  bad[1].depth = ACORN_DEVICE_DEPTH_MAX + 1;
  bad[2].bytes_per_second = 999;
  bad[3].latency_ns = (uint64_t{1} << 40) + 1;
  bad[4].overhead_ns = (uint64_t{1} << 40) + 1;
  for (const acorn_device_timing &timing : bad) EXPECT_EQ(acorn_device_init(&device, &timing), 1);
}

// ns from one of many equal reads to the next, when `depth` are always under way.
uint64_t PerRead(const acorn_device_timing &timing, uint64_t bytes, uint32_t depth) {
  acorn_device device;
  EXPECT_EQ(acorn_device_init(&device, &timing), 0);
  std::vector<uint64_t> finishes(1000);
  for (size_t i = 0; i < finishes.size(); ++i) {
    finishes[i] = acorn_device_read(&device, i < depth ? 0 : finishes[i - depth], bytes).finish;
  }
  return (finishes.back() - finishes[499]) / 500;
}

// The figures that the presets were made from, within a part in a hundred.
TEST(Device, PresetsGiveTheFiguresOfTheirDataSheets) {
  const struct {
    const char *name;
    uint64_t reads_per_s, alone_per_s, megabytes_per_s;  // 0: the sheet does not say
  } sheets[] = {{"sd", 1500, 1500, 0},       {"emmc51", 11000, 0, 250}, {"ufs22", 58000, 0, 1000},
                {"ufs31", 100000, 0, 2100}, {"ufs40", 110000, 0, 4200}, {"nvme", 600000, 19000, 3500}};
  const acorn_device_preset *presets;
  ASSERT_EQ(acorn_device_presets(&presets), std::size(sheets));
  for (const auto &sheet : sheets) {
    SCOPED_TRACE(sheet.name);
    const acorn_device_preset *preset = acorn_device_find(sheet.name);
    ASSERT_NE(preset, nullptr);
    EXPECT_NE(preset->description[0], 0);
    const double expected = static_cast<double>(sheet.reads_per_s);
    EXPECT_NEAR(1e9 / static_cast<double>(PerRead(preset->timing, 4096, preset->timing.depth)), expected, 0.015 * expected);
    if (sheet.alone_per_s != 0) {
      EXPECT_NEAR(1e9 / static_cast<double>(PerRead(preset->timing, 4096, 1)), static_cast<double>(sheet.alone_per_s),
                  0.01 * static_cast<double>(sheet.alone_per_s));
    }
    if (sheet.megabytes_per_s == 0) continue;
    const uint64_t large = PerRead(preset->timing, uint64_t{64} << 20, preset->timing.depth);
    EXPECT_NEAR(static_cast<double>(64 << 20) * 1e3 / static_cast<double>(large), static_cast<double>(sheet.megabytes_per_s),
                0.01 * static_cast<double>(sheet.megabytes_per_s));
  }
  EXPECT_EQ(acorn_device_find("ufs"), nullptr);
}

class Simulated : public testing::Test {
 protected:
  Simulated() : file_(40 * kPage + 100, 0), memory_(static_cast<char *>(std::aligned_alloc(kPage, 64 * kPage))) {
    for (size_t i = 0; i < file_.size(); ++i) file_[i] = static_cast<char>(i * 31 + i / kPage);
    inner_.struct_size = sizeof inner_;
    options_.struct_size = sizeof options_;
    options_.timing = kTiming;
    options_.file = file_.data();
    options_.file_bytes = file_.size();
  }
  ~Simulated() override {
    acorn_simulated_destroy(simulated_);
    std::free(memory_);
  }
  void Open() {
    acorn_simulated_destroy(simulated_);
    simulated_ = acorn_simulated_create(&options_, &inner_);
    ASSERT_NE(simulated_, nullptr);
    acorn_simulated_port(simulated_, &port_);
  }
  char *Place(size_t page) const { return memory_ + page * kPage; }
  acorn_read_request Page(size_t page, uint64_t id) const { return {Place(page), page * kPage, kPage, id}; }
  size_t Submit(const std::vector<acorn_read_request> &requests, int expected = 0) {
    size_t accepted = 99;
    EXPECT_EQ(port_.read_submit(port_.ctx, requests.data(), requests.size(), &accepted), expected);
    return accepted;
  }
  void SubmitPages(size_t count) {
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(Submit({Page(i, i)}), 1u);
  }
  std::vector<acorn_read_result> Wait(uint64_t timeout = kFor, size_t capacity = 64) {
    std::vector<acorn_read_result> results(capacity);
    size_t count = 99;
    EXPECT_EQ(port_.read_wait(port_.ctx, results.data(), capacity, timeout, &count), 0);
    results.resize(count);
    return results;
  }
  uint64_t Now() const { return port_.ticks(port_.ctx); }
  void ExpectPage(size_t page, const acorn_read_result &result) const {
    EXPECT_EQ(result.error, 0);
    EXPECT_EQ(result.bytes, kPage);
    EXPECT_EQ(std::memcmp(Place(page), file_.data() + page * kPage, kPage), 0);
  }
  void Order(uint32_t kind, uint32_t times, uint64_t offset, uint64_t bytes) {
    const acorn_simulated_fault fault = {kind, times, offset, bytes};
    ASSERT_EQ(acorn_simulated_add_fault(simulated_, &fault), 0);
  }

  std::vector<char> file_;
  char *memory_;
  acorn_port inner_ = {}, port_ = {};
  acorn_simulated_options options_ = {};
  acorn_simulated *simulated_ = nullptr;
};

TEST_F(Simulated, TimeGoesOnlyWhileReadsAreWaitedFor) {
  Open();
  SubmitPages(2);
  EXPECT_EQ(Now(), 0u);
  EXPECT_EQ(static_cast<uint8_t>(*Place(0)), 0xa5);  // not there yet
  EXPECT_TRUE(Wait(0).empty());
  EXPECT_TRUE(Wait(50000).empty());
  EXPECT_EQ(Now(), 50000u);
  std::vector<acorn_read_result> results = Wait();
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].id, 0u);
  ExpectPage(0, results[0]);
  EXPECT_EQ(Now(), 114096u);
  results = Wait();
  ASSERT_EQ(results.size(), 1u);
  ExpectPage(1, results[0]);
  EXPECT_EQ(Now(), 128192u);
  EXPECT_TRUE(Wait().empty());
  EXPECT_EQ(Now(), 128192u);
}

TEST_F(Simulated, ReadsGoOnWhileTheCallerComputes) {
  Open();
  SubmitPages(2);
  acorn_simulated_advance(simulated_, 120000);
  std::vector<acorn_read_result> results = Wait(0);
  ASSERT_EQ(results.size(), 1u);
  acorn_simulated_advance(simulated_, 100000);
  results = Wait();
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(Now(), 220000u);
}

TEST_F(Simulated, MoreThanTheDeviceTakesWaitBeforeIt) {
  options_.depth = 5;
  Open();
  EXPECT_EQ(port_.read_depth, 5u);
  EXPECT_EQ(Submit({Page(0, 0), Page(1, 1), Page(2, 2), Page(3, 3), Page(4, 4), Page(5, 5)}), 5u);
  EXPECT_EQ(Submit({Page(5, 5)}), 0u);
  const uint64_t finishes[] = {114096, 128192, 228192, 242288, 342288};
  for (size_t i = 0; i < 5; ++i) {
    const std::vector<acorn_read_result> results = Wait(kFor, 1);
    ASSERT_EQ(results.size(), 1u);
    EXPECT_EQ(results[0].id, i);
    EXPECT_EQ(Now(), finishes[i]);
  }
  const acorn_simulated_counts counts = acorn_simulated_get_counts(simulated_);
  EXPECT_EQ(counts.submitted, 5u);
  EXPECT_EQ(counts.ended, 5u);
  EXPECT_EQ(counts.most_under_way, 5u);
  EXPECT_EQ(counts.under_way, 0u);
  EXPECT_EQ(counts.bytes, 5 * kPage);
}

TEST_F(Simulated, ACancelledReadThatHasNotBegunEndsAtOnceAndGivesItsPlace) {
  options_.depth = 5;
  Open();
  SubmitPages(4);
  EXPECT_EQ(port_.read_cancel(port_.ctx, 2), 0);
  EXPECT_EQ(port_.read_cancel(port_.ctx, 0), 0);  // begun: comes as if nothing had been
  EXPECT_NE(port_.read_cancel(port_.ctx, 17), 0);
  std::vector<acorn_read_result> results = Wait();
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].id, 2u);
  EXPECT_EQ(results[0].error, ACORN_READ_CANCELLED);
  EXPECT_EQ(results[0].bytes, 0u);
  EXPECT_EQ(Now(), 0u);
  ExpectPage(0, Wait().at(0));
  ExpectPage(1, Wait().at(0));
  results = Wait();
  EXPECT_EQ(results.at(0).id, 3u);
  EXPECT_EQ(Now(), 228192u);  // where read 2 would have ended
  EXPECT_EQ(acorn_simulated_get_counts(simulated_).cancelled, 1u);
}

TEST_F(Simulated, EndOfTheFile) {
  Open();
  EXPECT_EQ(Submit({{Place(0), 40 * kPage, kPage, 1}, {Place(1), 41 * kPage, kPage, 2}}), 2u);
  EXPECT_EQ(Wait().at(0).bytes, 100u);
  EXPECT_EQ(std::memcmp(Place(0), file_.data() + 40 * kPage, 100), 0);
  const std::vector<acorn_read_result> beyond = Wait();
  EXPECT_EQ(beyond.at(0).bytes, 0u);
  EXPECT_EQ(beyond.at(0).error, 0);
}

TEST_F(Simulated, RequestsThatBreakTheRules) {
  options_.depth = 4;
  Open();
  const std::vector<acorn_read_request> bad = {
      {Place(0) + 1, 0, kPage, 9}, {Place(0), 512, kPage, 9}, {Place(0), 0, 100, 9}, {Place(0), 0, 0, 9}, {nullptr, 0, kPage, 9}};
  for (const acorn_read_request &request : bad) EXPECT_EQ(Submit({request}, EINVAL), 0u);
  EXPECT_EQ(Submit({Page(0, 1), Page(1, 1)}, EINVAL), 1u);  // one id for two
  EXPECT_EQ(Wait().size(), 1u);
}

TEST_F(Simulated, FaultsOnOrder) {
  options_.depth = 5;
  Open();
  Order(ACORN_SIMULATED_ERROR, 1, 0, 1);
  Order(ACORN_SIMULATED_SHORT, 1, 4 * kPage, 4 * kPage);
  Order(ACORN_SIMULATED_DAMAGE, 2, 2 * kPage + 5, 1);
  ASSERT_EQ(Submit({Page(0, 0), Page(1, 1), Page(2, 2), {Place(4), 4 * kPage, 3 * kPage, 4}}), 4u);
  EXPECT_EQ(Wait().at(0).error, ACORN_SIMULATED_EIO);
  ExpectPage(1, Wait().at(0));
  EXPECT_EQ(Wait().at(0).bytes, kPage);
  size_t wrong = 0;
  for (size_t i = 0; i < kPage; ++i) {
    const uint8_t bits = static_cast<uint8_t>(Place(2)[i] ^ file_[2 * kPage + i]);
    EXPECT_EQ(bits & (bits - 1), 0);  // one or none
    wrong += bits != 0;
  }
  EXPECT_EQ(wrong, 1u);
  const acorn_read_result half = Wait().at(0);
  EXPECT_EQ(half.error, 0);
  EXPECT_EQ(half.bytes, kPage);  // of three pages
  SubmitPages(2);  // the first two faults are used up
  ExpectPage(0, Wait().at(0));
  ExpectPage(1, Wait().at(0));
  EXPECT_EQ(acorn_simulated_get_counts(simulated_).failed, 1u);
}

TEST_F(Simulated, StorageThatGoesAwayAndComesBack) {
  Open();
  Order(ACORN_SIMULATED_ERROR, UINT32_MAX, 0, UINT64_MAX);
  for (int i = 0; i < 3; ++i) {
    SubmitPages(1);
    EXPECT_EQ(Wait().at(0).error, ACORN_SIMULATED_EIO);
    char byte;
    EXPECT_NE(port_.read(port_.ctx, &byte, 0, 1), 0);
  }
  acorn_simulated_clear_faults(simulated_);
  SubmitPages(1);
  ExpectPage(0, Wait().at(0));
  const acorn_simulated_fault none = {0, 1, 0, 1}, unknown = {ACORN_SIMULATED_KINDS, 1, 0, 1};
  EXPECT_EQ(acorn_simulated_add_fault(simulated_, &none), 1);
  EXPECT_EQ(acorn_simulated_add_fault(simulated_, &unknown), 1);
  for (uint32_t i = 0; i < ACORN_SIMULATED_FAULTS_MAX; ++i) Order(ACORN_SIMULATED_ERROR, 1, 0, 1);
  const acorn_simulated_fault one = {ACORN_SIMULATED_ERROR, 1, 0, 1};
  EXPECT_EQ(acorn_simulated_add_fault(simulated_, &one), 1);
}

TEST_F(Simulated, AStallEndsByACancelOrByItself) {
  options_.stall_ns = 1000000;
  Open();
  Order(ACORN_SIMULATED_STALL, 2, 0, 1);
  SubmitPages(2);
  EXPECT_EQ(Wait().at(0).id, 1u);  // the other one passes it
  EXPECT_TRUE(Wait(100000).empty());
  EXPECT_EQ(Now(), 228192u);  // the deadline
  EXPECT_EQ(port_.read_cancel(port_.ctx, 0), 0);
  EXPECT_EQ(Wait(0).at(0).error, ACORN_READ_CANCELLED);
  EXPECT_EQ(Now(), 228192u);
  SubmitPages(1);
  ExpectPage(0, Wait().at(0));
  EXPECT_EQ(Now(), 228192u + 114096 + 1000000);
}

TEST_F(Simulated, AHangDoesNotHearACancel) {
  options_.stall_ns = 1000000;
  Open();
  Order(ACORN_SIMULATED_HANG, 1, 0, 1);
  SubmitPages(1);
  EXPECT_EQ(port_.read_cancel(port_.ctx, 0), 0);
  EXPECT_TRUE(Wait(1000000).empty());
  ExpectPage(0, Wait().at(0));
  EXPECT_EQ(Now(), 1114096u);
}

TEST_F(Simulated, AWaitThatWouldNeverEndFailsInstead) {
  options_.stall_ns = UINT64_MAX;
  Open();
  Order(ACORN_SIMULATED_HANG, UINT32_MAX, 0, 1);
  SubmitPages(1);
  EXPECT_TRUE(Wait(5000000000).empty());
  EXPECT_EQ(Now(), 5000000000u);
  acorn_read_result result;
  size_t count = 1;
  EXPECT_EQ(port_.read_wait(port_.ctx, &result, 1, kFor, &count), EDEADLK);
  EXPECT_EQ(count, 0u);
  char byte;
  EXPECT_EQ(port_.read(port_.ctx, &byte, 0, 1), EDEADLK);
}

// Order of the results, as ids, and the clock at the end.
std::pair<std::vector<uint64_t>, uint64_t> Shuffled(const acorn_simulated_options &options, const acorn_port &inner, char *memory) {
  acorn_simulated *simulated = acorn_simulated_create(&options, &inner);
  acorn_port port;
  acorn_simulated_port(simulated, &port);
  std::vector<uint64_t> order;
  for (uint64_t i = 0; i < 16; ++i) {
    const acorn_read_request request = {memory + i * kPage, i * kPage, kPage, i};
    size_t accepted = 0;
    EXPECT_EQ(port.read_submit(port.ctx, &request, 1, &accepted), 0);
  }
  for (size_t count = 1; count != 0;) {
    acorn_read_result results[3];
    EXPECT_EQ(port.read_wait(port.ctx, results, 3, kFor, &count), 0);
    for (size_t i = 0; i < count; ++i) order.push_back(results[i].id);
  }
  const uint64_t now = port.ticks(port.ctx);
  acorn_simulated_destroy(simulated);
  return {order, now};
}

TEST_F(Simulated, JitterBringsThemOutOfOrderAndASeedRepeatsIt) {
  options_.depth = 16;
  options_.jitter_ns = 300000;
  options_.seed = 5;
  const auto first = Shuffled(options_, inner_, memory_), again = Shuffled(options_, inner_, memory_);
  EXPECT_EQ(first, again);
  EXPECT_EQ(std::set<uint64_t>(first.first.begin(), first.first.end()).size(), 16u);
  EXPECT_FALSE(std::is_sorted(first.first.begin(), first.first.end()));
  options_.seed = 6;
  EXPECT_NE(Shuffled(options_, inner_, memory_).first, first.first);
}

TEST_F(Simulated, FaultsByChanceComeAsOftenAsAskedFor) {
  options_.chance_q16[ACORN_SIMULATED_ERROR] = 6554;  // a tenth
  options_.chance_q16[ACORN_SIMULATED_SHORT] = 3277;
  options_.seed = 1;
  Open();
  size_t failed = 0, brief = 0;
  for (uint64_t i = 0; i < 4000; ++i) {
    ASSERT_EQ(Submit({Page(i % 40, i)}), 1u);
    const acorn_read_result result = Wait().at(0);
    failed += result.error != 0;
    brief += result.error == 0 && result.bytes < kPage;
  }
  EXPECT_NEAR(static_cast<double>(failed), 400, 60);
  EXPECT_NEAR(static_cast<double>(brief), 180, 45);
}

TEST_F(Simulated, AReadOfTheCallersTakesTheDevicesTime) {
  Open();
  char bytes[100];
  EXPECT_EQ(port_.read(port_.ctx, bytes, 33, sizeof bytes), 0);
  EXPECT_EQ(std::memcmp(bytes, file_.data() + 33, sizeof bytes), 0);
  EXPECT_EQ(Now(), 110100u);
  EXPECT_NE(port_.read(port_.ctx, bytes, file_.size() - 99, sizeof bytes), 0);
  Order(ACORN_SIMULATED_DAMAGE, 1, 0, 1);
  EXPECT_EQ(port_.read(port_.ctx, bytes, 0, sizeof bytes), 0);
  EXPECT_NE(std::memcmp(bytes, file_.data(), sizeof bytes), 0);
}

TEST_F(Simulated, OptionsThatContradictEachOther) {
  std::vector<acorn_simulated_options> bad(6, options_);
  bad[0].struct_size = 8;
  bad[1].depth = ACORN_SIMULATED_DEPTH_MAX + 1;
  bad[2].alignment = 3000;
  bad[3].alignment = 32768;
  bad[4].file = nullptr;                                // and nobody else reads
  bad[5].sleep_until = [](void *, uint64_t) {};         // without a clock
  for (const acorn_simulated_options &options : bad) EXPECT_EQ(acorn_simulated_create(&options, &inner_), nullptr);
  options_.timing.depth = 0;
  EXPECT_EQ(acorn_simulated_create(&options_, &inner_), nullptr);
}

// Real bytes from a file, times of the device: around the POSIX port, whose own order and speed do not show.
TEST_F(Simulated, AroundAnotherPort) {
  const test::TempFolder folder;
  const std::string path = folder.Write("file", std::string(file_.data(), file_.size()));
  acorn_posix *posix = acorn_posix_create(1);
  ASSERT_EQ(acorn_posix_set_file(posix, path.c_str()), 0);
  acorn_posix_port(posix, &inner_, 0);
  options_.file = nullptr;
  options_.alignment = 4096;
  Open();
  const uint64_t finishes[] = {114096, 128192, 242288, 256384};
  for (size_t i = 0; i < 4; ++i) {
    if (i % 2 == 0) {
      ASSERT_EQ(Submit({Page(i, i), Page(i + 1, i + 1)}), 2u);
    }
    const std::vector<acorn_read_result> results = Wait();
    ASSERT_EQ(results.size(), 1u);
    EXPECT_EQ(results[0].id, i);
    ExpectPage(i, results[0]);
    EXPECT_EQ(Now(), finishes[i]);
  }
  ASSERT_EQ(Submit({{Place(0), 40 * kPage, kPage, 1}}), 1u);
  EXPECT_EQ(Wait().at(0).bytes, 100u);
  char byte;
  EXPECT_EQ(port_.read(port_.ctx, &byte, 5, 1), 0);
  EXPECT_EQ(byte, file_[5]);
  SubmitPages(2);  // destroyed with them under way
  acorn_simulated_destroy(simulated_);
  simulated_ = nullptr;
  acorn_posix_destroy(posix);
}

// Real time, with a clock that only sleeping moves.
TEST_F(Simulated, InRealTimeReadsAreHeldBack) {
  uint64_t clock = 1000;
  inner_.ctx = &clock;
  inner_.ticks = [](void *ctx) { return *static_cast<uint64_t *>(ctx); };
  inner_.ticks_per_second = 1000000000;
  options_.sleep_ctx = &clock;
  options_.sleep_until = [](void *ctx, uint64_t ticks) { *static_cast<uint64_t *>(ctx) = ticks; };
  Open();
  SubmitPages(2);
  EXPECT_TRUE(Wait(0).empty());
  EXPECT_TRUE(Wait(50000).empty());
  EXPECT_EQ(clock, 51000u);
  ExpectPage(0, Wait().at(0));
  EXPECT_EQ(clock, 115096u);
  ExpectPage(1, Wait().at(0));
  EXPECT_EQ(clock, 129192u);
  char byte;
  EXPECT_EQ(port_.read(port_.ctx, &byte, 0, 1), 0);
  EXPECT_EQ(clock, 129192u + 110001);
}

}  // namespace
}  // namespace acorn
