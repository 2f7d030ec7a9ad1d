// One engine on a simulated disk, opened and closed as a test says.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/crc32c.h"
#include "base/log.h"
#include "tests/sim/sim_disk.h"
#include "zdb/engine.h"
#include "zdb/storage_format.h"

namespace qsfs::zdb {

// A clock that stands still until told.
class StillClock final : public Clock {
 public:
  MonotonicTime now() const override { return now_; }
  WallTime wall() const override { return std::chrono::seconds(1700000000) + now_; }
  void sleep_for(Duration duration) override { now_ += duration; }

 private:
  MonotonicTime now_{0};
};

// The kernel's generator: thread-safe, as the engine needs it.
class EngineLife {
 public:
  explicit EngineLife(std::uint64_t seed = 1) : disk_(std::make_unique<sim::SimDisk>(seed)) {
    options.directory = "/zdb";
    quiet_log();
    options.sync = SyncPolicy::kNever;
    options.background_thread = false;
    options.scrub = false;
  }

  // Thousands of crashes would each say what they found.
  static void quiet_log() {
    static const bool quiet = log::start({.level = log::Level::kOff, .file = ""}).has_value();
    EXPECT_TRUE(quiet);
  }

  EngineOptions options;
  StillClock clock;
  Random& random = system_random();

  sim::SimDisk& disk() { return *disk_; }
  Engine& engine() { return *engine_; }
  bool is_open() const { return engine_ != nullptr; }
  EngineNamespace& ns() { return *namespace_; }

  Status try_open() {
    auto opened = Engine::open(options, *disk_, clock, random);
    if (!opened) return std::unexpected(opened.error());
    engine_ = std::move(*opened);
    namespace_ = engine_->find_namespace("default");
    return {};
  }
  void open() {
    const Status opened = try_open();
    ASSERT_TRUE(opened) << opened.error().message();
  }
  void close() {
    namespace_.reset();
    engine_.reset();
  }
  void reopen() {
    close();
    open();
  }
  // The process or the machine dies; the disk of the next life is there afterwards.
  void crash(sim::CrashKind kind) {
    disk_->crash(kind);
    close();
    disk_ = disk_->reopen();
  }

  void must_set(const std::string& key, const std::string& value) {
    const auto stored = ns().set(as_bytes(key), as_bytes(value), 1000);
    ASSERT_TRUE(stored) << stored.error().message();
    ASSERT_EQ(as_text(stored->key), key);
  }
  void must_remove(const std::string& key) {
    const auto removed = ns().remove(as_bytes(key));
    ASSERT_TRUE(removed) << removed.error().message();
    EXPECT_TRUE(*removed);
  }
  std::optional<std::string> must_get(Bytes key) {
    const auto value = ns().get(key);
    EXPECT_TRUE(value) << value.error().message();
    if (!value || !*value) return std::nullopt;
    return std::string(as_text(**value));
  }
  std::optional<std::string> must_get(const std::string& key) { return must_get(as_bytes(key)); }
  std::optional<std::string> must_get_id(std::uint64_t id) { return must_get(encode_id(id)); }
  std::uint64_t must_allocate(const std::string& value, std::uint32_t unix_time_s = 1000) {
    const auto stored = ns().set({}, as_bytes(value), unix_time_s);
    EXPECT_TRUE(stored) << stored.error().message();
    if (!stored || stored->key.size() != kSequentialKeyLen) return UINT64_MAX;
    return load_le<std::uint64_t>(stored->key.data());
  }
  std::vector<std::string> scan_all(std::size_t page_len) {
    std::vector<std::string> keys;
    Buffer cursor;
    do {
      const auto page = ns().scan(cursor, page_len);
      EXPECT_TRUE(page) << page.error().message();
      if (!page) return keys;
      EXPECT_LE(page->entries.size(), page_len);
      for (const ScanEntry& entry : page->entries) keys.emplace_back(as_text(entry.key));
      cursor = page->cursor;
    } while (!cursor.empty());
    return keys;
  }

  std::string namespace_directory() const { return options.directory + "/namespaces/00000001"; }
  std::vector<std::string> files_ending(const std::string& suffix) {
    std::vector<std::string> found;
    const auto names = disk_->list(namespace_directory());
    EXPECT_TRUE(names);
    for (const std::string& name : names.value_or(std::vector<std::string>())) {
      if (name.ends_with(suffix)) found.push_back(namespace_directory() + "/" + name);
    }
    return found;
  }
  std::vector<std::string> data_files() { return files_ending(".data"); }
  void remove_index_files() {
    for (const std::string& path : files_ending(".index")) ASSERT_TRUE(disk_->remove(path));
  }

 private:
  std::unique_ptr<sim::SimDisk> disk_;
  std::unique_ptr<Engine> engine_;
  std::shared_ptr<EngineNamespace> namespace_;
};

}  // namespace qsfs::zdb
