// Power losses and kills in the middle of everything that writes: sets with a time, removals, new,
// changed and removed namespaces, FLUSH, NSJUMP, RELOAD and compaction, on several namespaces.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>

#include "tests/zdb/engine_fixture.h"

namespace qsfs::zdb {
namespace {

using sim::CrashKind;

struct Stored {
  std::string value;
  std::uint32_t unix_time_s = 0;
  bool operator==(const Stored&) const = default;
};
using Entries = std::map<std::string, Stored>;

struct ModelNamespace {
  std::uint64_t limit = 0;
  std::vector<Entries> states{{}};  // Since the last sync; the last is the present.
};

class AdminHistory {
 public:
  AdminHistory(EngineLife& life, std::uint64_t seed, bool may_lose_unsynced)
      : life_(life), random_(seed), may_lose_unsynced_(may_lose_unsynced) {
    model_["default"];
  }

  // One random operation. False: it failed, and may or may not have happened.
  bool step() {
    auto picked = model_.begin();
    std::advance(picked, static_cast<std::ptrdiff_t>(random_.below(model_.size())));
    doubtful_ = picked->first;
    const auto ns = life_.engine().find_namespace(picked->first);
    EXPECT_NE(ns, nullptr) << picked->first;
    if (ns == nullptr) return false;
    ModelNamespace& model = picked->second;
    const std::uint64_t dice = random_.below(100);
    if (dice < 55) return set(*ns, model);
    if (dice < 70) return remove(*ns, model);
    if (dice < 75) return change(picked->first, model);
    if (dice < 79) return create();
    if (dice < 82) return drop(picked->first);
    if (dice < 84) return flush(*ns, model);
    if (dice < 88) return may_fail(ns->rotate());
    if (dice < 91) return may_fail(life_.engine().reload_namespace(picked->first));
    if (dice < 95) return sync();
    life_.engine().tidy();
    return !life_.disk().crashed();
  }

  // After a crash: everything is as it was, but for the operation that was under way.
  void check() {
    std::map<std::string, ModelNamespace> found;
    for (const std::string& name : life_.engine().namespace_names()) {
      const auto ns = life_.engine().find_namespace(name);
      found[name].limit = ns->settings().data_limit_bytes;
      found[name].states = {read(*ns)};
    }
    for (const auto& [name, model] : model_) {
      SCOPED_TRACE(name);
      const bool in_doubt = name == doubtful_ && doubt_ != Doubt::kNone;
      const auto at = found.find(name);
      if (at == found.end()) {
        EXPECT_TRUE(in_doubt && doubt_ == Doubt::kDrop) << "is gone";
        continue;
      }
      const bool other_limit = in_doubt && doubt_ == Doubt::kLimit;
      EXPECT_TRUE(at->second.limit == model.limit ||
                  (other_limit && at->second.limit == doubtful_limit_));
      EXPECT_TRUE(is_allowed(at->second.states.back(), model, in_doubt))
          << at->second.states.back().size() << " entries, not " << model.states.back().size();
    }
    for (const auto& [name, state] : found) {
      const bool is_new = doubt_ == Doubt::kCreate && name == doubtful_;
      EXPECT_TRUE(model_.contains(name) || is_new) << name << " came back";
    }
    model_ = std::move(found);
    doubt_ = Doubt::kNone;
  }

 private:
  enum class Doubt { kNone, kEntry, kLimit, kCreate, kDrop, kFlush };

  static Entries read(EngineNamespace& ns) {
    Entries entries;
    Buffer cursor;
    do {
      const auto page = ns.scan(cursor, 9);
      EXPECT_TRUE(page) << page.error().message();
      if (!page) return entries;
      for (const ScanEntry& entry : page->entries) {
        const auto value = ns.get(entry.key);
        EXPECT_TRUE(value && *value);
        if (!value || !*value) return entries;
        entries[std::string(as_text(entry.key))] = {std::string(as_text(**value)),
                                                    ns.key_time(entry.key)->value_or(0)};
      }
      cursor = page->cursor;
    } while (!cursor.empty());
    EXPECT_EQ(ns.counters().entries, entries.size());
    return entries;
  }

  bool is_allowed(const Entries& found, const ModelNamespace& model, bool in_doubt) const {
    if (found == model.states.back()) return true;
    if (in_doubt && doubt_ == Doubt::kEntry && found == doubtful_entries_) return true;
    if (in_doubt && doubt_ == Doubt::kFlush) {
      // The newest part: what is there is what it was last.
      return std::ranges::all_of(found, [&](const auto& entry) {
        const auto at = model.states.back().find(entry.first);
        return at != model.states.back().end() && at->second == entry.second;
      });
    }
    return may_lose_unsynced_ && std::ranges::find(model.states, found) != model.states.end();
  }

  bool may_fail(const Status& status) {
    doubt_ = Doubt::kNone;
    return status.has_value();
  }

  bool set(EngineNamespace& ns, ModelNamespace& model) {
    Entries next = model.states.back();
    const std::string key = "k" + std::to_string(random_.below(15));
    std::string value(static_cast<std::size_t>(random_.below(1500)), '\0');
    random_.fill(std::as_writable_bytes(std::span(value)));
    const auto time = static_cast<std::uint32_t>(random_.below(UINT32_MAX));
    next[key] = {value, time};
    const auto stored = ns.set(as_bytes(key), as_bytes(value), time);
    // The same bytes are not written again, whatever the time.
    if (stored && stored->outcome == SetOutcome::kIdentical) return true;
    return became(model, std::move(next), stored.has_value());
  }
  bool remove(EngineNamespace& ns, ModelNamespace& model) {
    Entries next = model.states.back();
    const std::string key = "k" + std::to_string(random_.below(15));
    next.erase(key);
    return became(model, std::move(next), ns.remove(as_bytes(key)).has_value());
  }
  bool became(ModelNamespace& model, Entries next, bool good) {
    doubt_ = good ? Doubt::kNone : Doubt::kEntry;
    if (good) model.states.push_back(std::move(next));
    if (!good) doubtful_entries_ = std::move(next);
    return good;
  }
  bool change(const std::string& name, ModelNamespace& model) {
    doubtful_limit_ = kGiB + random_.below(kGiB);
    const bool good =
        life_.engine().change_settings(name, {.data_limit_bytes = doubtful_limit_}).has_value();
    doubt_ = good ? Doubt::kNone : Doubt::kLimit;
    if (good) model.limit = doubtful_limit_;
    return good;
  }
  bool create() {
    const std::string name = "ns" + std::to_string(random_.below(4));
    if (model_.contains(name)) return true;
    doubtful_ = name;
    const bool good = life_.engine().create_namespace(name, {}).has_value();
    doubt_ = good ? Doubt::kNone : Doubt::kCreate;
    if (good) model_[name];
    return good;
  }
  bool drop(const std::string& name) {
    if (name == "default") return true;
    const bool good = life_.engine().drop_namespace(name).has_value();
    doubt_ = good ? Doubt::kNone : Doubt::kDrop;
    if (good) model_.erase(name);
    return good;
  }
  bool flush(EngineNamespace& ns, ModelNamespace& model) {
    const bool good = ns.flush().has_value();
    doubt_ = good ? Doubt::kNone : Doubt::kFlush;
    // Durable, whatever the policy.
    if (good) model.states = {{}};
    return good;
  }
  bool sync() {
    doubt_ = Doubt::kNone;
    if (!life_.engine().sync()) return false;
    for (auto& [name, model] : model_) model.states = {model.states.back()};
    return true;
  }

  EngineLife& life_;
  SeededRandom random_;
  const bool may_lose_unsynced_;
  std::map<std::string, ModelNamespace> model_;
  // Of the operation that was under way.
  Doubt doubt_ = Doubt::kNone;
  std::string doubtful_;
  Entries doubtful_entries_;
  std::uint64_t doubtful_limit_ = 0;
};

struct AdminCase {
  SyncPolicy sync;
  CrashKind kind;
};

class EngineAdminCrashTest : public testing::TestWithParam<AdminCase> {};

TEST_P(EngineAdminCrashTest, LeavesWhatThePolicyPromises) {
  const AdminCase& at = GetParam();
  const char* asked = std::getenv("QSFS_TEST_SEEDS");  // NOLINT(concurrency-mt-unsafe): one thread.
  const std::uint64_t seeds = asked == nullptr ? 25 : std::strtoull(asked, nullptr, 10);
  for (std::uint64_t seed = 1; seed <= seeds; ++seed) {
    SCOPED_TRACE(seed);
    EngineLife life(seed);
    SeededRandom random(seed * 31);
    life.options.sync = at.sync;
    life.options.data_file_bytes_max = 8 * kKiB;
    life.open();
    ASSERT_TRUE(life.is_open());
    const bool may_lose = at.kind == CrashKind::kPowerLoss && at.sync != SyncPolicy::kAlways;
    AdminHistory history(life, seed, may_lose);
    for (int crashes = 0; crashes < 4; ++crashes) {
      life.disk().crash_at_call(1 + random.below(400), at.kind);
      for (int i = 0; i < 200 && history.step(); ++i) life.clock.sleep_for(Duration(1'000'000));
      life.crash(at.kind);
      life.disk().crash_at_call(1 + random.below(60), at.kind);
      if (!life.try_open() || life.disk().crashed()) {
        life.crash(at.kind);
        life.open();
      } else {
        life.disk().crash_at_call(UINT64_MAX, at.kind);
      }
      ASSERT_TRUE(life.is_open());
      history.check();
      if (testing::Test::HasFailure()) return;
    }
  }
}

std::string admin_case_name(const testing::TestParamInfo<AdminCase>& at) {
  return std::string(at.param.sync == SyncPolicy::kAlways ? "Always" : "Never") +
         (at.param.kind == CrashKind::kKill ? "Kill" : "PowerLoss");
}
INSTANTIATE_TEST_SUITE_P(All, EngineAdminCrashTest,
                         testing::Values(AdminCase{SyncPolicy::kAlways, CrashKind::kPowerLoss},
                                         AdminCase{SyncPolicy::kAlways, CrashKind::kKill},
                                         AdminCase{SyncPolicy::kNever, CrashKind::kPowerLoss},
                                         AdminCase{SyncPolicy::kNever, CrashKind::kKill}),
                         admin_case_name);

}  // namespace
}  // namespace qsfs::zdb
