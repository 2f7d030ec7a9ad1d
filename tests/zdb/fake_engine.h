// An Engine in memory, for the tests of what stands above it. No file is touched, nothing survives.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "tests/zdb/gated_disk.h"
#include "zdb/engine.h"

namespace qsfs::zdb {

// Thread-safe.
class FakeNamespace final : public EngineNamespace {
 public:
  FakeNamespace(std::string name, NamespaceSettings settings)
      : name_(std::move(name)), settings_(std::move(settings)) {}

  const std::string& name() const override { return name_; }
  NamespaceSettings settings() const override {
    MutexLock lock(mu_);
    return settings_;
  }
  NamespaceCounters counters() const override {
    MutexLock lock(mu_);
    return {.entries = by_key_.size(), .data_bytes = data_bytes_, .next_id = next_id_};
  }
  bool is_dropped() const override {
    MutexLock lock(mu_);
    return dropped_;
  }

  Result<SetResult> set(Bytes key, Bytes value, std::uint32_t unix_time_s) override {
    MutexLock lock(mu_);
    QSFS_TRY(take_failure());
    if (key.size() > kKeyLenMax) return fail(Errc::kTooBig, "key");
    std::string id(as_text(key));
    if (settings_.mode == NamespaceMode::kUser) {
      if (id.empty()) return fail(Errc::kInvalidArgument, "no key");
    } else if (!id.empty() && !by_key_.contains(id)) {
      return fail(Errc::kInvalidArgument, "only updates");
    }
    const auto existing = by_key_.find(id);
    const bool exists = existing != by_key_.end();
    if (exists && settings_.worm) return fail(Errc::kPermission, "worm");
    const std::uint64_t old_bytes = exists ? entries_.at(existing->second).value.size() : 0;
    if (settings_.data_limit_bytes > 0 &&
        data_bytes_ + value.size() > settings_.data_limit_bytes + old_bytes) {
      return fail(Errc::kNoSpace, "limit");
    }
    if (exists && std::ranges::equal(entries_.at(existing->second).value, value)) {
      return SetResult{.key = {key.begin(), key.end()}, .outcome = SetOutcome::kIdentical};
    }
    if (settings_.mode == NamespaceMode::kSequential) {
      std::array<std::byte, kSequentialKeyLen> raw;
      store_le(raw.data(), next_id_++);
      if (id.empty()) id = as_text(raw);
    }
    if (exists) erase(existing);
    used_ = true;
    data_bytes_ += value.size();
    by_key_[id] = next_position_;
    entries_[next_position_++] = {
        .key = id, .value = {value.begin(), value.end()}, .unix_time_s = unix_time_s};
    const Bytes stored = as_bytes(id);
    return SetResult{.key = {stored.begin(), stored.end()}};
  }

  Result<std::optional<Buffer>> get(Bytes key) override {
    MutexLock lock(mu_);
    QSFS_TRY(take_failure());
    const Entry* const entry = find(key);
    return entry == nullptr ? std::nullopt : std::optional(entry->value);
  }

  Result<bool> remove(Bytes key) override {
    MutexLock lock(mu_);
    QSFS_TRY(take_failure());
    const auto existing = by_key_.find(std::string(as_text(key)));
    if (existing == by_key_.end()) return false;
    if (settings_.worm) return fail(Errc::kPermission, "worm");
    erase(existing);
    return true;
  }

  Result<bool> exists(Bytes key) override {
    MutexLock lock(mu_);
    QSFS_TRY(take_failure());
    return find(key) != nullptr;
  }

  Result<std::optional<std::uint64_t>> length(Bytes key) override {
    MutexLock lock(mu_);
    QSFS_TRY(take_failure());
    const Entry* const entry = find(key);
    return entry == nullptr ? std::nullopt : std::optional<std::uint64_t>(entry->value.size());
  }

  Result<CheckVerdict> check(Bytes key) override {
    MutexLock lock(mu_);
    QSFS_TRY(take_failure());
    return find(key) == nullptr ? CheckVerdict::kMissing : check_verdict_;
  }

  Result<ScanPage> scan(Bytes cursor, std::size_t entries_max) override {
    MutexLock lock(mu_);
    QSFS_TRY(take_failure());
    std::uint64_t position = 0;
    if (!cursor.empty()) {
      if (cursor.size() != kCursorLen) return fail(Errc::kInvalidArgument, "cursor");
      position = load_le<std::uint64_t>(cursor.data()) + 1;
    }
    ScanPage page;
    if (empty_pages_ > 0) {
      --empty_pages_;
      page.cursor.assign(kCursorLen, std::byte{0});
      store_le(page.cursor.data(), position - 1);
      return page;
    }
    auto at = entries_.lower_bound(position);
    for (; at != entries_.end() && page.entries.size() < entries_max; ++at) {
      const Bytes key = as_bytes(at->second.key);
      page.entries.push_back({.key = {key.begin(), key.end()},
                              .payload_bytes = at->second.value.size(),
                              .unix_time_s = at->second.unix_time_s});
      position = at->first;
    }
    if (at != entries_.end()) {
      page.cursor.assign(kCursorLen, std::byte{0});
      store_le(page.cursor.data(), position);
    }
    return page;
  }

  // What only the real engine does.
  Result<ScanPage> scan_back(Bytes /*cursor*/, std::size_t /*entries_max*/) override {
    return not_here();
  }
  Result<std::optional<Buffer>> cursor_of(Bytes /*key*/) override { return not_here(); }
  Result<std::optional<std::uint32_t>> key_time(Bytes /*key*/) override { return not_here(); }
  // Nothing has an older version here.
  Result<std::optional<EntryVersion>> version(Bytes key, Bytes /*reference*/) override {
    MutexLock lock(mu_);
    QSFS_TRY(take_failure());
    const Entry* const entry = find(key);
    if (entry == nullptr) return std::optional<EntryVersion>();
    return std::optional<EntryVersion>(
        {.previous = {}, .unix_time_s = entry->unix_time_s, .value = entry->value});
  }
  Result<std::optional<RawEntry>> raw_entry(std::uint32_t /*file_id*/,
                                            std::uint64_t /*offset*/) override {
    return not_here();
  }
  NamespacePlace place() const override { return {.directory = "/fake"}; }
  Status rotate() override { return not_here(); }
  Status flush() override { return not_here(); }

  // The next call on keys fails with this.
  void fail_next(Errc code) {
    MutexLock lock(mu_);
    failure_ = code;
  }
  // The next `count` scans find nothing, but are not at the end.
  void give_empty_pages(int count) {
    MutexLock lock(mu_);
    empty_pages_ = count;
  }
  void set_check_verdict(CheckVerdict verdict) {
    MutexLock lock(mu_);
    check_verdict_ = verdict;
  }
  void drop() {
    MutexLock lock(mu_);
    dropped_ = true;
  }
  Status change(const NamespaceSettings& settings) {
    MutexLock lock(mu_);
    if (used_ && settings.mode != settings_.mode) return fail(Errc::kPermission, "used");
    settings_ = settings;
    return {};
  }

 private:
  static constexpr std::size_t kCursorLen = 17;
  static std::unexpected<Error> not_here() { return fail(Errc::kUnsupported, "a fake"); }
  struct Entry {
    std::string key;
    Buffer value;
    std::uint32_t unix_time_s = 0;
  };
  using KeyMap = std::map<std::string, std::uint64_t>;

  Status take_failure() QSFS_REQUIRES(mu_) {
    if (dropped_) return fail(Errc::kNotFound, "dropped");
    if (!failure_) return {};
    return fail(*std::exchange(failure_, std::nullopt), "injected");
  }
  const Entry* find(Bytes key) const QSFS_REQUIRES(mu_) {
    const auto at = by_key_.find(std::string(as_text(key)));
    return at == by_key_.end() ? nullptr : &entries_.at(at->second);
  }
  void erase(KeyMap::iterator at) QSFS_REQUIRES(mu_) {
    data_bytes_ -= entries_.at(at->second).value.size();
    entries_.erase(at->second);
    by_key_.erase(at);
  }

  const std::string name_;
  mutable Mutex mu_;
  NamespaceSettings settings_ QSFS_GUARDED_BY(mu_);
  KeyMap by_key_ QSFS_GUARDED_BY(mu_);
  std::map<std::uint64_t, Entry> entries_ QSFS_GUARDED_BY(mu_);  // In write order.
  std::uint64_t next_position_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t next_id_ QSFS_GUARDED_BY(mu_) = 0;
  std::uint64_t data_bytes_ QSFS_GUARDED_BY(mu_) = 0;
  bool used_ QSFS_GUARDED_BY(mu_) = false;
  bool dropped_ QSFS_GUARDED_BY(mu_) = false;
  std::optional<Errc> failure_ QSFS_GUARDED_BY(mu_);
  int empty_pages_ QSFS_GUARDED_BY(mu_) = 0;
  CheckVerdict check_verdict_ QSFS_GUARDED_BY(mu_) = CheckVerdict::kGood;
};

// Thread-safe.
class FakeEngine final : public Engine {
 public:
  explicit FakeEngine(NamespaceMode default_mode = NamespaceMode::kUser) {
    namespaces_["default"] =
        std::make_shared<FakeNamespace>("default", NamespaceSettings{.mode = default_mode});
  }

  std::shared_ptr<EngineNamespace> find_namespace(std::string_view name) override {
    return fake_namespace(name);
  }
  std::vector<std::string> namespace_names() override {
    MutexLock lock(mu_);
    std::vector<std::string> names;
    for (const auto& [name, one] : namespaces_) names.push_back(name);
    return names;
  }
  Result<std::shared_ptr<EngineNamespace>> create_namespace(
      std::string_view name, const NamespaceSettings& settings) override {
    if (name.empty() || name == "." || name == ".." || name.size() > kNamespaceLenMax ||
        name.find('/') != std::string_view::npos) {
      return fail(Errc::kInvalidArgument, "name");
    }
    if (slow_gate != nullptr) slow_gate->pass();
    MutexLock lock(mu_);
    auto& slot = namespaces_[std::string(name)];
    if (slot != nullptr) return fail(Errc::kExists, "name");
    slot = std::make_shared<FakeNamespace>(std::string(name), settings);
    return slot;
  }
  Status drop_namespace(std::string_view name) override {
    if (name == "default") return fail(Errc::kPermission, "default");
    MutexLock lock(mu_);
    const auto at = namespaces_.find(std::string(name));
    if (at == namespaces_.end()) return fail(Errc::kNotFound, "name");
    at->second->drop();
    namespaces_.erase(at);
    return {};
  }
  Status change_settings(std::string_view name, const NamespaceSettings& settings) override {
    const std::shared_ptr<FakeNamespace> changed = fake_namespace(name);
    if (changed == nullptr) return fail(Errc::kNotFound, "name");
    return changed->change(settings);
  }
  Status reload_namespace(std::string_view /*name*/) override {
    return fail(Errc::kUnsupported, "a fake");
  }
  std::shared_ptr<EngineNamespace> successor_of(const EngineNamespace& /*dropped*/) override {
    return nullptr;
  }
  Status sync() override { return {}; }
  Result<SpaceInfo> space() override {
    if (space_fails) return fail(Errc::kIo, "space");
    return SpaceInfo{.total_bytes = 8 * kGiB, .free_bytes = 4 * kGiB};
  }
  const std::string& instance_id() const override { return instance_id_; }

  // Null when there is none.
  std::shared_ptr<FakeNamespace> fake_namespace(std::string_view name) {
    MutexLock lock(mu_);
    const auto at = namespaces_.find(std::string(name));
    return at == namespaces_.end() ? nullptr : at->second;
  }

  bool space_fails = false;
  Gate* slow_gate = nullptr;  // Where create_namespace() waits; null: nowhere. Borrowed.

 private:
  const std::string instance_id_ = "4711";
  Mutex mu_;
  std::map<std::string, std::shared_ptr<FakeNamespace>> namespaces_ QSFS_GUARDED_BY(mu_);
};

}  // namespace qsfs::zdb
