// What a namespace of very many keys costs: memory of the index, and how long a start takes.
//
//   zdb_scale fill DIR user|seq KEYS    makes a namespace of KEYS values of 64 bytes
//   zdb_scale open DIR user|seq KEYS    opens it in a fresh process and prints what that took
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/posix_disk.h"
#include "base/random.h"
#include "zdb/engine.h"

namespace qsfs::zdb {
namespace {

constexpr std::size_t kValueLen = 64;

std::array<std::byte, 16> key_of(std::uint64_t number) {
  std::array<std::byte, 16> key{};
  store_le(key.data(), number * 0x9e3779b97f4a7c15U);
  store_le(key.data() + 8, number);
  return key;
}

std::uint64_t resident_bytes() {
  std::ifstream in("/proc/self/statm");
  std::uint64_t total = 0;
  std::uint64_t resident = 0;
  in >> total >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

std::unique_ptr<Engine> open_engine(const std::string& directory, bool is_user) {
  auto engine =
      Engine::open({.directory = directory,
                    .sync = SyncPolicy::kNever,
                    .default_mode = is_user ? NamespaceMode::kUser : NamespaceMode::kSequential},
                   posix_disk(), system_clock(), system_random());
  if (!engine) std::fprintf(stderr, "%s\n", engine.error().message().c_str());
  QSFS_CHECK(engine.has_value());
  return std::move(*engine);
}

int fill(const std::string& directory, bool is_user, std::uint64_t keys) {
  const auto begin = std::chrono::steady_clock::now();
  const auto engine = open_engine(directory, is_user);
  const auto ns = engine->find_namespace("default");
  constexpr std::uint64_t kTogether = 64;
  std::array<std::array<std::byte, 16>, kTogether> names{};
  std::array<std::array<std::byte, kValueLen>, kTogether> values{};
  std::vector<EngineNamespace::SetRequest> requests;
  for (std::uint64_t i = 0; i < keys; i += kTogether) {
    requests.clear();
    for (std::uint64_t j = 0; j < kTogether && i + j < keys; ++j) {
      store_le(values[j].data(), i + j);
      names[j] = key_of(i + j);
      requests.push_back(
          {.key = is_user ? Bytes(names[j]) : Bytes(), .value = values[j], .unix_time_s = 1});
    }
    for (const auto& stored : ns->set_many(requests)) QSFS_CHECK(stored.has_value());
  }
  QSFS_CHECK(engine->sync().has_value());
  fmt::print("{} keys written in {:.1f} s\n", keys, seconds_since(begin));
  return 0;
}

int open(const std::string& directory, bool is_user, std::uint64_t keys) {
  const std::uint64_t before = resident_bytes();
  const auto begin = std::chrono::steady_clock::now();
  const auto engine = open_engine(directory, is_user);
  const double took = seconds_since(begin);
  const std::uint64_t grown = resident_bytes() - before;
  const NamespaceCounters counters = engine->find_namespace("default")->counters();
  QSFS_CHECK(counters.entries == keys);
  SeededRandom random(1);
  constexpr std::uint64_t kGets = 100'000;
  const auto gets_begin = std::chrono::steady_clock::now();
  const auto ns = engine->find_namespace("default");
  for (std::uint64_t i = 0; i < kGets; ++i) {
    const std::uint64_t number = random.below(keys);
    const auto key = key_of(number);
    std::array<std::byte, 8> id;
    store_le(id.data(), number);
    const auto value = ns->get(is_user ? Bytes(key) : Bytes(id));
    QSFS_CHECK(value && *value && load_le<std::uint64_t>((*value)->data()) == number);
  }
  const auto per_key = [&](std::uint64_t bytes) {
    return static_cast<double>(bytes) / static_cast<double>(keys);
  };
  fmt::print(
      "{} keys, {}: opened in {:.2f} s; index {:.2f} bytes a key (counted), {:.2f} (resident, "
      "whole process); {:.1f} us a GET\n",
      keys, is_user ? "user" : "sequential", took, per_key(counters.index_bytes), per_key(grown),
      seconds_since(gets_begin) * 1e6 / static_cast<double>(kGets));
  return 0;
}

int run(int argc, char** argv) {
  std::uint64_t keys = 0;
  if (argc == 5) {
    const std::string_view text(argv[4]);
    std::from_chars(text.data(), text.data() + text.size(), keys);
  }
  const std::string_view action = argc == 5 ? argv[1] : "";
  if (keys == 0 || (action != "fill" && action != "open")) {
    std::fprintf(stderr, "usage: zdb_scale fill|open DIR user|seq KEYS\n");
    return 2;
  }
  const bool is_user = std::string_view(argv[3]) == "user";
  return action == "fill" ? fill(argv[2], is_user, keys) : open(argv[2], is_user, keys);
}

}  // namespace
}  // namespace qsfs::zdb

int main(int argc, char** argv) { return qsfs::zdb::run(argc, argv); }
